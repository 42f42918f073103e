"""A survivor that lies with the server: its own ciphertext convicts it, wherever it is seen."""

import base64

import numpy as np
import pytest
from checklist_outcome import outcome, with_round
from run_simulator import RunSimulator, simulate

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.privacy.frame import parse_aggregate
from twopm_flower.privacy.residues import MODULUS, fingerprint
from twopm_flower.verify import verify_bundle
from twopm_flower.verify.expanded import parse_expanded
from twopm_flower.verify.round import check_fingerprints, frame_context

MODE = {"trust_mode": "one-time-key"}
LIAR = 2


def shift(size):
    """Return what the server adds to the true sum."""
    change = np.zeros(size, np.uint64)
    change[1] = 12345 << 9
    return change


class FalseSum(RunSimulator):
    """The server shifts each sum, and one survivor signs fingerprints that fit."""

    def __init__(self, **options):
        super().__init__(
            **MODE, hooks={"aggregate": self.falsify, "fingerprints": self.vouch}, **options
        )
        self.liar = self.nodes[LIAR].address

    def falsify(self, number, ciphertexts, honest):
        return Ciphertext((honest.c0 + shift(honest.c0.size)) % np.uint64(MODULUS), honest.c1)

    def vouch(self, node, points, values):
        if node != self.liar:
            return values
        change = shift(self.parameters.wire_coefficients(self.layout.size))
        return tuple(
            (value + fingerprint(change, rho)) % MODULUS
            for value, rho in zip(values, points, strict=True)
        )


def falsified(**options):
    simulator = FalseSum(**options)
    return simulator.build(), simulator.liar


def only(simulation, keep):
    """Return the ciphertexts in the bundle of those (round, node) that are to be kept."""
    return {
        survivor.update_digest: simulation.bundle.ciphertexts[survivor.update_digest]
        for entry in simulation.bundle.rounds
        for survivor in entry.manifest.survivors
        if keep(entry.manifest.round, survivor.node)
    }


def verified(simulation, **changes):
    bundle = simulation.bundle.model_copy(update=changes)
    return verify_bundle(bundle, chain=simulation.chain)


# --- in a bundle --------------------------------------------------------------------------


def test_with_all_ciphertexts_the_survivor_that_vouched_for_a_false_sum_is_named():
    simulation, liar = falsified()
    number, detail = outcome(simulation)
    assert number == 8
    assert f"round 1: {liar} signed fingerprints that are not those of its own" in detail
    assert "they are the proof" in detail


@pytest.mark.parametrize("dropped", [0, 1, 3])
def test_dropping_an_honest_ciphertext_does_not_save_the_liar(dropped):
    simulation, liar = falsified(repeated_round=None)
    honest = simulation.bundle.roster.nodes[dropped]
    assert honest != liar
    left = only(simulation, lambda number, node: node != honest)
    number, detail = outcome(simulation, ciphertexts=left)
    assert number == 8
    assert f"convict {liar}" in detail


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_ciphertext_of_the_liar_alone_is_enough_in_any_round(number):
    simulation, liar = falsified()
    left = only(simulation, lambda round_, node: (round_, node) == (number, liar))
    step, detail = outcome(simulation, ciphertexts=left)
    assert step == 8
    assert f"round {number}: {liar} signed" in detail


def test_the_liar_is_convicted_where_another_survivor_signed_no_fingerprints():
    simulation, liar = falsified(vanished_round=3, repeated_round=None)
    entry = simulation.bundle.rounds[2]
    (vanished,) = {*entry.manifest.nodes} - {signed.node for signed in entry.fingerprints}
    left = only(simulation, lambda round_, node: round_ == 3 and node in (vanished, liar))
    step, detail = outcome(simulation, ciphertexts=left)
    assert step == 8
    assert f"round 3: {liar} signed" in detail


def test_a_lie_whose_ciphertext_is_withheld_passes_and_the_report_says_what_is_missing():
    simulation, liar = falsified(repeated_round=None)
    report = verified(simulation, ciphertexts=only(simulation, lambda _, node: node != liar))
    assert (report.exit_code, report.level) == (0, "fingerprints")
    assert noted(report) == [
        "The sums of rounds 1, 2, 3 were not re-executed: 3 of 4 ciphertexts of each are here. "
        "They are public with one-time keys: ask for the others."
    ]


def test_step_8_says_how_many_fingerprints_were_compared_with_ciphertexts():
    simulation = simulate(**MODE, vanished_round=3, repeated_round=None)
    step = verified(simulation).steps[7]
    assert step.detail == (
        "11 fingerprint statements, 11 of them compared with ciphertexts, "
        "1 computed from ciphertexts of nodes that vanished"
    )


# --- what is not there --------------------------------------------------------------------


def noted(report):
    return [note for note in report.notes if "ciphertexts" in note]


def test_nothing_is_noted_of_a_run_whose_sums_were_all_redone():
    assert noted(verified(simulate(**MODE))) == []


def test_each_round_that_lacks_ciphertexts_is_noted_with_how_many_are_there():
    simulation = simulate(**MODE)
    first = simulation.bundle.roster.nodes[0]
    left = only(simulation, lambda number, node: number != 2 and (number, node) != (1, first))
    report = verified(simulation, ciphertexts=left)
    assert report.exit_code == 0
    one, two = noted(report)
    assert one.startswith("The sum of round 1 was not re-executed: 3 of 4 ciphertexts are here.")
    assert two.startswith("The sum of round 2 was not re-executed: 0 of 3 ciphertexts are here.")


def test_a_round_that_waits_for_its_openings_is_not_noted():
    simulation = simulate(**MODE, rounds=2, planned=5, repeated_round=None)
    left = only(simulation, lambda number, node: number == 1)
    assert noted(verified(simulation, ciphertexts=left)) == []
    (note,) = noted(verified(simulation, ciphertexts={}))
    assert note.startswith("The sum of round 1 was not re-executed: 0 of 4")


@pytest.mark.parametrize("trust_mode", ["shared-key", "plaintext"])
def test_in_other_modes_nobody_is_told_to_ask_for_ciphertexts(trust_mode):
    assert noted(verified(simulate(trust_mode=trust_mode, ciphertexts=False))) == []


# --- at a node ----------------------------------------------------------------------------


def shown(simulation):
    """Return what a node checks of round 1, and the ciphertexts of its survivors."""
    simulator = RunSimulator(**MODE)
    bundle, entry = simulation.bundle, simulation.bundle.rounds[0]
    manifest, setting = entry.manifest, (simulator.parameters, simulator.layout)
    frame = base64.b64decode(bundle.aggregates[manifest.aggregate_digest])
    aggregate = parse_aggregate(frame, frame_context(manifest), *setting)
    ciphertexts = {
        survivor.node: parse_expanded(
            base64.b64decode(bundle.ciphertexts[survivor.update_digest]),
            frame_context(manifest, survivor.node),
            *setting,
        )
        for survivor in manifest.survivors
    }
    return (manifest, entry.fingerprints, aggregate, bundle.deployment.domain), ciphertexts


def test_a_node_that_is_shown_the_ciphertext_of_the_liar_refuses_the_sum_and_names_it():
    simulation, liar = falsified()
    check, ciphertexts = shown(simulation)
    check_fingerprints(*check)  # the lie fits: signed fingerprints alone do not show it
    check_fingerprints(*check, {n: c for n, c in ciphertexts.items() if n != liar})
    with pytest.raises(VerificationError, match=f"convict {liar}"):
        check_fingerprints(*check, {liar: ciphertexts[liar]})


def test_a_node_that_is_shown_honest_ciphertexts_of_signers_accepts_the_sum():
    check, ciphertexts = shown(simulate(**MODE))
    check_fingerprints(*check, ciphertexts)


def test_nobody_is_convicted_by_a_ciphertext_that_it_did_not_sign():
    check, ciphertexts = shown(simulate(**MODE))
    (framed, _), (_, other), *_ = ciphertexts.items()
    with pytest.raises(VerificationError, match="it signed") as refused:
        check_fingerprints(*check, {framed: other})
    assert "convict" not in str(refused.value)


def test_a_ciphertext_in_place_of_a_false_fingerprint_shows_that_the_sum_is_false():
    simulation, liar = falsified()
    entry = simulation.bundle.rounds[0]
    honest = tuple(signed for signed in entry.fingerprints if signed.node != liar)
    rounds = with_round(simulation.bundle, 1, fingerprints=honest)
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 8
    assert "not the sum of their updates" in detail
