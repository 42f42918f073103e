"""Runs in the trust mode one-time-key: what is verified, and one lie at a time."""

import base64

import numpy as np
import pytest
from checklist_outcome import outcome, with_round
from memory_chain import word
from run_simulator import RunSimulator, simulate

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.frame import parse_aggregate
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import Exclusion, updates_root
from twopm_flower.records.statements import OpeningStatement, sign
from twopm_flower.verify import verify_bundle
from twopm_flower.verify.expanded import parse_expanded
from twopm_flower.verify.one_time_keys import thresholds
from twopm_flower.verify.round import check_fingerprints, frame_context

MODE = {"trust_mode": "one-time-key"}
OTHER_MODES = pytest.mark.parametrize("trust_mode", ["shared-key", "plaintext"])


def one_time(**options):
    return simulate(**MODE, **options)


def report_of(simulation, **changes):
    bundle = simulation.bundle.model_copy(update=changes)
    return verify_bundle(bundle, chain=simulation.chain)


# --- honest runs --------------------------------------------------------------------------


def test_anyone_redoes_the_sums_of_an_honest_run():
    report = report_of(one_time())
    assert {step.status for step in report.steps} == {"passed"}
    assert (report.exit_code, report.level, report.finalised) == (0, "re-executed", True)
    assert "3 of them open a sum" in report.steps[0].detail
    assert "group key" in report.steps[2].detail
    assert report.steps[10].detail.startswith("at least 3 nodes opened each sum; ")


def test_a_node_that_vanished_is_replaced_by_its_public_ciphertext():
    simulation = one_time(vanished_round=3)
    entry = simulation.bundle.rounds[2]
    assert len(entry.fingerprints) == len(entry.openings) == 3 < len(entry.manifest.survivors)
    report = report_of(simulation)
    assert (report.exit_code, report.level) == (0, "re-executed")
    assert "1 computed from ciphertexts of nodes that vanished" in report.steps[7].detail
    assert "none was opened for models [2, 3]" in report.steps[11].detail


def test_the_ciphertext_in_place_of_fingerprints_is_enough_without_the_others():
    simulation = one_time(vanished_round=3)
    report = report_of(simulation, ciphertexts=of_the_vanished(simulation))
    assert (report.exit_code, report.level) == (0, "fingerprints")
    assert report.steps[8].status == "skipped"
    assert "not re-executed" in report.steps[8].detail


def test_a_bundle_without_ciphertexts_is_verified_by_fingerprints():
    report = report_of(one_time(ciphertexts=False))
    assert (report.exit_code, report.level) == (0, "fingerprints")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (MODE, "up to 1 of the 4 members together with the server learn nothing of another"),
        ({**MODE, "colluders": 0}, "the server alone learns nothing of another member's update"),
        ({"trust_mode": "shared-key"}, "any one of the 4 members together with the server"),
        ({"trust_mode": "plaintext"}, "the server could read each of them"),
    ],
)
def test_the_report_says_who_would_have_to_collude(options, said):
    report = verify_bundle(simulate(**options).bundle, chain=None)
    assert said in report.notes[0]


# --- thresholds and shares ----------------------------------------------------------------


def test_more_colluders_than_any_threshold_withstands_fail():
    number, detail = outcome(one_time(nodes=4, colluders=3))
    assert number == 1
    assert "4 members cannot share keys against 3 colluders" in detail


def test_survivors_among_whom_a_colluder_could_single_one_out_fail():
    """Three contribute, as many as the terms ask for: too few against two colluders."""
    number, detail = outcome(one_time(nodes=4, colluders=2))
    assert number == 5
    assert "3 contributors" in detail
    assert "at least 4" in detail


def test_too_few_survivors_fail_in_an_attempt_that_was_superseded_as_well():
    def lie(number, attempt, fields):
        if (number, attempt) != (2, 1):
            return fields
        survivors = fields["survivors"][:3]
        left = tuple(
            Exclusion(node=survivor.node, reason="late", detail="")
            for survivor in fields["survivors"][3:]
        )
        return {
            **fields,
            "survivors": survivors,
            "exclusions": left,
            "samples": simulator.roster.samples_of([survivor.node for survivor in survivors]),
            "updates_root": updates_root(fields["task_id"], 2, 1, survivors),
        }

    simulator = RunSimulator(**MODE, nodes=5, colluders=1, hooks={"manifest": lie})
    number, detail = outcome(simulator.build())
    assert number == 5
    assert "3 contributors; with 1 colluders" in detail


@pytest.mark.parametrize(
    ("nodes", "colluders", "openers", "survivors"),
    [(3, 1, 3, 3), (4, 1, 3, 3), (4, 2, 4, 4), (5, 0, 3, 3), (6, 1, 4, 4), (7, 3, 6, 6)],
)
def test_thresholds_are_the_ones_that_exclude_two_openings(nodes, colluders, openers, survivors):
    bundle = one_time(nodes=nodes, colluders=colluders, rounds=1, repeated_round=None).bundle
    found = thresholds(bundle.terms, bundle.roster)
    assert (found.openers, found.survivors) == (openers, survivors)
    assert 2 * openers - nodes > colluders


def test_the_terms_may_ask_for_more_contributors_than_the_thresholds():
    bundle = one_time(nodes=4, colluders=0).bundle
    terms = bundle.terms.model_copy(update={"min_contributors": 4})
    assert thresholds(terms, bundle.roster).survivors == 4


def test_an_update_whose_key_was_shared_out_to_nobody_fails():
    def lie(number, node, fields):
        return {**fields, "shares_root": ZERO_DIGEST} if number == 2 else fields

    number, detail = outcome(one_time(hooks={"update": lie}))
    assert number == 4
    assert "shared out to nobody" in detail


@OTHER_MODES
def test_shares_of_a_key_in_another_trust_mode_fail(trust_mode):
    def lie(number, node, fields):
        return {**fields, "shares_root": word("shares")}

    number, detail = outcome(simulate(hooks={"update": lie}, trust_mode=trust_mode))
    assert number == 4
    assert "shares_root" in detail


# --- openings -----------------------------------------------------------------------------


def with_openings(simulation, change):
    entry = simulation.bundle.rounds[0]
    return with_round(simulation.bundle, 1, openings=tuple(change(list(entry.openings))))


def test_a_sum_that_fewer_opened_than_the_threshold_fails():
    simulation = one_time()
    enough = with_openings(simulation, lambda openings: openings[1:])
    assert report_of(simulation, rounds=enough).exit_code == 0
    rounds = with_openings(simulation, lambda openings: openings[2:])
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 11
    assert "2 members opened the sum; the threshold is 3 of 4" in detail


def test_an_opening_that_stands_twice_fails():
    simulation = one_time()
    rounds = with_openings(simulation, lambda openings: [openings[0], *openings])
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 11
    assert "distinct" in detail


def test_openings_in_another_order_fail():
    simulation = one_time()
    number, detail = outcome(simulation, rounds=with_openings(simulation, reversed))
    assert number == 11
    assert "sorted" in detail


def test_an_opening_by_a_stranger_fails():
    simulation = one_time()
    stranger = RunSimulator(nodes=5).nodes[4]

    def smuggle(openings):
        honest = openings[0].statement.model_dump()
        statement = OpeningStatement(**{**honest, "node": stranger.address})
        signed = sign(statement, stranger.signer, simulation.bundle.deployment.domain)
        return sorted([*openings, signed], key=lambda entry: entry.node.lower())

    number, detail = outcome(simulation, rounds=with_openings(simulation, smuggle))
    assert number == 11
    assert "not a member" in detail


@pytest.mark.parametrize("field", ["task_id", "round", "attempt", "manifest_digest"])
def test_an_opening_for_another_manifest_fails(field):
    def lie(number, node, fields):
        other = fields[field] + 1 if isinstance(fields[field], int) else word("other")
        return {**fields, field: other} if number == 2 else fields

    number, detail = outcome(one_time(hooks={"opening": lie}))
    assert number == 11
    assert "opening for another manifest" in detail


def test_an_opening_that_another_node_signed_fails():
    simulation = one_time()

    def forge(openings):
        signature = openings[1].signature
        return [openings[0].model_copy(update={"signature": signature}), *openings[1:]]

    number, detail = outcome(simulation, rounds=with_openings(simulation, forge))
    assert number == 11
    assert "is signed by" in detail


@OTHER_MODES
def test_openings_in_another_trust_mode_fail(trust_mode):
    openings = one_time().bundle.rounds[0].openings
    simulation = simulate(trust_mode=trust_mode)
    rounds = with_round(simulation.bundle, 1, openings=openings)
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 11
    assert "nothing is shared out" in detail


def test_a_last_round_that_waits_for_its_openings_verifies_as_unfinished():
    simulation = one_time(rounds=2, planned=5, repeated_round=None)
    assert simulation.bundle.rounds[1].openings == ()
    report = report_of(simulation)
    assert report.exit_code == 0
    assert "unfinished" in report.steps[10].detail


# --- ciphertexts in place of fingerprints -------------------------------------------------


def of_the_vanished(simulation):
    """Return the ciphertexts of the survivors that signed no fingerprints."""
    found = {}
    for entry in simulation.bundle.rounds:
        signers = {signed.node for signed in entry.fingerprints}
        for survivor in entry.manifest.survivors:
            if survivor.node not in signers:
                digest = survivor.update_digest
                found[digest] = simulation.bundle.ciphertexts[digest]
    return found


def test_neither_fingerprint_nor_ciphertext_fails():
    simulation = one_time(vanished_round=3)
    number, detail = outcome(simulation, ciphertexts={})
    assert number == 8
    assert "neither a fingerprint nor the ciphertext" in detail


def test_fingerprints_that_are_missing_in_shared_key_mode_fail_for_all_their_ciphertexts():
    number, detail = outcome(simulate(vanished_round=3))
    assert number == 8
    assert "fingerprints are from" in detail


def test_another_ciphertext_than_the_listed_one_in_place_of_fingerprints_fails():
    simulation = one_time(vanished_round=3)
    ((digest, frame),) = of_the_vanished(simulation).items()
    data = bytearray(base64.b64decode(frame))
    data[-7:-1] = bytes(6)
    changed = base64.b64encode(data).decode()
    number, detail = outcome(simulation, ciphertexts={digest: changed})
    assert number == 8
    assert "it signed" in detail


def one_left_out(number, ciphertexts, honest):
    return add(list(ciphertexts.values())[1:], max_nodes=4)


def shifted(number, ciphertexts, honest):
    return Ciphertext((honest.c0 + np.uint64(1)) % np.uint64(MODULUS), honest.c1)


@pytest.mark.parametrize("lie", [one_left_out, shifted])
@pytest.mark.parametrize("vanished_round", [None, 1])
def test_a_sum_that_is_not_that_of_the_listed_updates_fails(lie, vanished_round):
    simulation = one_time(hooks={"aggregate": lie}, vanished_round=vanished_round)
    ciphertexts = of_the_vanished(simulation)
    number, detail = outcome(simulation, ciphertexts=ciphertexts)
    assert number == 8
    assert "not the sum" in detail


def test_fingerprints_in_another_order_fail():
    simulation = one_time(vanished_round=3)
    fingerprints = simulation.bundle.rounds[2].fingerprints[::-1]
    rounds = with_round(simulation.bundle, 3, fingerprints=fingerprints)
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 8
    assert "fingerprints are from" in detail


def test_a_node_checks_sums_with_the_same_function():
    simulation = one_time(vanished_round=3)
    bundle, entry = simulation.bundle, simulation.bundle.rounds[2]
    manifest = entry.manifest
    simulator = RunSimulator(**MODE)
    aggregate = parse_aggregate(
        base64.b64decode(bundle.aggregates[manifest.aggregate_digest]),
        frame_context(manifest),
        simulator.parameters,
        simulator.layout,
    )
    vanished = {
        survivor.node: parse_expanded(
            base64.b64decode(bundle.ciphertexts[survivor.update_digest]),
            frame_context(manifest, survivor.node),
            simulator.parameters,
            simulator.layout,
        )
        for survivor in manifest.survivors
        if survivor.update_digest in of_the_vanished(simulation)
    }
    check = (manifest, entry.fingerprints, aggregate, bundle.deployment.domain)
    check_fingerprints(*check, vanished)
    with pytest.raises(VerificationError, match="neither a fingerprint"):
        check_fingerprints(*check)
    (node,) = vanished
    with pytest.raises(VerificationError, match="it signed"):
        check_fingerprints(*check, {node: aggregate})


def test_ciphertexts_that_were_altered_fail_even_where_the_sum_is_not_redone():
    simulation = one_time()
    first, second = list(simulation.bundle.ciphertexts)[:2]
    swapped = {first: simulation.bundle.ciphertexts[second]}
    assert outcome(simulation, ciphertexts=swapped)[0] == 8


@pytest.mark.parametrize("absent", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_ciphertexts_stand_in_for_the_fingerprints_of_any_survivors(absent):
    simulation = one_time()
    honest = simulation.bundle.rounds[0].fingerprints
    kept = tuple(signed for index, signed in enumerate(honest) if index not in absent)
    rounds = with_round(simulation.bundle, 1, fingerprints=kept)
    report = report_of(simulation, rounds=rounds)
    assert report.exit_code == 0
    assert f"{len(absent)} computed" in report.steps[7].detail
