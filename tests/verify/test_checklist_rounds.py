"""One lie at a time, told consistently: steps 4 to 9 notice those about rounds."""

import base64

import numpy as np
import pytest
from checklist_outcome import outcome, with_round
from memory_chain import word
from run_simulator import RunSimulator, simulate

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.records.manifest import updates_root
from twopm_flower.verify import verify_bundle
from twopm_flower.verify.round_steps import redo_sums
from twopm_flower.verify.subject import Subject


@pytest.mark.parametrize(
    "field",
    [
        "task_id",
        "terms_digest",
        "roster_digest",
        "app_bundle",
        "config_digest",
        "previous_manifest",
        "base_model",
        "key_id",
        "parameters_id",
        "layout_digest",
    ],
)
def test_an_update_signed_for_another_setting_fails(field):
    def lie(number, node, fields):
        chosen = number == 2 and node == victim
        return {**fields, field: word("other")} if chosen else fields

    simulator = RunSimulator(hooks={"update": lie})
    victim = simulator.nodes[1].address
    number, detail = outcome(simulator.build())
    assert number == 4
    assert field in detail
    assert victim in detail


@pytest.mark.parametrize("field", ["round", "attempt"])
def test_an_update_replayed_from_another_round_or_attempt_fails(field):
    def lie(number, node, fields):
        return {**fields, field: fields[field] + 1} if number == 1 else fields

    assert outcome(simulate(hooks={"update": lie}))[0] == 4


def test_an_update_without_its_statement_fails():
    simulation = simulate()
    updates = simulation.bundle.rounds[0].updates[1:]
    rounds = with_round(simulation.bundle, 1, updates=updates)
    assert outcome(simulation, rounds=rounds)[0] == 4


def test_a_statement_signed_by_another_node_fails():
    simulation = simulate()
    first, second, *others = simulation.bundle.rounds[0].updates
    forged = first.model_copy(update={"signature": second.signature})
    rounds = with_round(simulation.bundle, 1, updates=(forged, second, *others))
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 4
    assert "is signed by" in detail


def test_a_configuration_that_the_terms_do_not_give_fails_even_if_all_signed_it():
    simulator = RunSimulator(
        hooks={
            "update": lambda number, node, fields: {**fields, "config_digest": word("other")},
            "manifest": lambda number, attempt, fields: {**fields, "config_digest": word("other")},
        }
    )
    number, detail = outcome(simulator.build())
    assert number == 4
    assert "config_digest" in detail


def test_a_key_that_was_not_dealt_fails_even_if_all_signed_it():
    simulator = RunSimulator()
    simulator.key_id = word("one key")
    simulation = simulator.build()
    simulator.key_id = word("another key")
    assert outcome(simulation, key_deal=simulator.key_deal())[0] == 4


def test_a_member_left_out_without_being_listed_fails():
    def lie(number, attempt, fields):
        return {**fields, "exclusions": ()} if attempt == 2 else fields

    number, detail = outcome(simulate(hooks={"manifest": lie}))
    assert number == 5
    assert "not listed" in detail


def test_too_few_contributors_fail():
    number, detail = outcome(simulate(nodes=3))
    assert number == 5
    assert "2 contributors" in detail


def test_another_number_of_samples_fails():
    def lie(number, attempt, fields):
        return {**fields, "samples": fields["samples"] + 1}

    number, detail = outcome(simulate(hooks={"manifest": lie}))
    assert number == 5
    assert "samples" in detail


def test_a_merkle_root_of_other_updates_fails():
    def lie(number, attempt, fields):
        return {**fields, "updates_root": word("other")} if number == 3 else fields

    number, detail = outcome(simulate(hooks={"manifest": lie}))
    assert number == 5
    assert "merkle root" in detail


def test_a_manifest_that_continues_another_history_fails():
    def other(number, fields):
        return {**fields, "previous_manifest": word("other")} if number == 2 else fields

    simulator = RunSimulator(
        hooks={
            "update": lambda number, node, fields: other(number, fields),
            "manifest": lambda number, attempt, fields: other(number, fields),
        }
    )
    number, detail = outcome(simulator.build())
    assert number == 6
    assert "previous_manifest" in detail


def test_training_on_from_a_model_that_nobody_opened_fails():
    def other(number, fields):
        return {**fields, "base_model": word("other")} if number == 3 else fields

    simulator = RunSimulator(
        hooks={
            "update": lambda number, node, fields: other(number, fields),
            "manifest": lambda number, attempt, fields: other(number, fields),
        }
    )
    number, detail = outcome(simulator.build())
    assert number == 6
    assert "base_model" in detail


def with_superseded(simulation, **changes):
    """Return the rounds with the superseded manifest changed, and its root made to fit."""
    attempt = simulation.bundle.rounds[1].superseded[0]
    manifest = attempt.manifest.model_copy(update=changes)
    root = updates_root(manifest.task_id, manifest.round, manifest.attempt, manifest.survivors)
    manifest = manifest.model_copy(update={"updates_root": root})
    changed = attempt.model_copy(update={"manifest": manifest})
    return with_round(simulation.bundle, 2, superseded=(changed,))


@pytest.mark.parametrize("attempt", [2, 3])
def test_a_superseded_attempt_that_is_not_before_the_valid_one_fails(attempt):
    simulation = simulate()
    number, detail = outcome(simulation, rounds=with_superseded(simulation, attempt=attempt))
    assert number == 6
    assert "not in order" in detail


def test_a_superseded_attempt_of_another_round_fails():
    simulation = simulate()
    config = simulation.bundle.rounds[2].manifest.config_digest
    rounds = with_superseded(simulation, round=3, config_digest=config)
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 6
    assert "its place is 2" in detail


def test_a_missing_aggregate_fails():
    simulation = simulate()
    aggregates = dict(list(simulation.bundle.aggregates.items())[1:])
    number, detail = outcome(simulation, aggregates=aggregates)
    assert number == 7
    assert "lacks the aggregate" in detail


def test_the_aggregate_of_another_round_fails():
    simulation = simulate()
    first, second, third = simulation.bundle.aggregates.items()
    aggregates = dict([first, (second[0], third[1]), third])
    assert outcome(simulation, aggregates=aggregates)[0] == 7


def shifted(number, ciphertexts, honest):
    c0 = (honest.c0 + np.uint64(1)) % np.uint64(MODULUS)
    return Ciphertext(c0, honest.c1)


def one_of_them(number, ciphertexts, honest):
    return next(iter(ciphertexts.values()))


def one_left_out(number, ciphertexts, honest):
    return add(list(ciphertexts.values())[1:], max_nodes=4)


def one_doubled(number, ciphertexts, honest):
    return add([honest, next(iter(ciphertexts.values()))], max_nodes=4)


@pytest.mark.parametrize("trust_mode", ["shared-key", "plaintext"])
@pytest.mark.parametrize("lie", [shifted, one_of_them, one_left_out, one_doubled])
def test_a_sum_that_is_not_the_sum_of_the_listed_updates_fails(lie, trust_mode):
    hooks = {"aggregate": lie}
    simulation = simulate(hooks=hooks, ciphertexts=False, trust_mode=trust_mode)
    number, detail = outcome(simulation)
    assert number == 8
    assert "not the sum" in detail


def test_a_false_fingerprint_fails():
    def lie(node, points, values):
        return ((values[0] + 1) % MODULUS, *values[1:])

    assert outcome(simulate(hooks={"fingerprints": lie}))[0] == 8


@pytest.mark.parametrize("values", [(), (0, 0), (MODULUS, 0, 0)])
def test_fingerprints_of_another_number_or_range_fail(values):
    simulation = simulate(hooks={"fingerprints": lambda node, points, honest: values})
    assert outcome(simulation)[0] == 8


def test_fingerprints_of_fewer_than_all_survivors_fail():
    simulation = simulate()
    fingerprints = simulation.bundle.rounds[0].fingerprints[:-1]
    rounds = with_round(simulation.bundle, 1, fingerprints=fingerprints)
    assert outcome(simulation, rounds=rounds)[0] == 8


def test_false_fingerprints_that_cancel_out_convict_their_signers():
    """Two nodes shift their fingerprints against each other: the sum is right, they are not."""

    def shift(node, points, values):
        offset = {addresses[0]: 1, addresses[1]: MODULUS - 1}.get(node, 0)
        return tuple((value + offset) % MODULUS for value in values)

    simulator = RunSimulator(hooks={"fingerprints": shift})
    addresses = [node.address for node in simulator.nodes]
    simulation = simulator.build()
    number, detail = outcome(simulation)
    assert number == 8
    assert f"convict {min(addresses[:2], key=str.lower)}" in detail
    public = simulation.bundle.model_copy(update={"ciphertexts": {}})
    assert verify_bundle(public, chain=simulation.chain).exit_code == 0


@pytest.mark.parametrize("trust_mode", ["shared-key", "plaintext"])
def test_a_node_that_vouches_for_a_shifted_sum_is_convicted_by_its_ciphertext(trust_mode):
    def vouch(node, points, values):
        if node != liar:
            return values
        return tuple((v + plus_one(rho)) % MODULUS for v, rho in zip(values, points, strict=True))

    def plus_one(rho):
        return sum(pow(rho, j + 1, MODULUS) for j in range(coefficients))

    hooks = {"aggregate": shifted, "fingerprints": vouch}
    simulator = RunSimulator(hooks=hooks, trust_mode=trust_mode)
    liar = simulator.nodes[1].address
    coefficients = simulator.parameters.coefficients(simulator.layout.size)
    number, detail = outcome(simulator.build())
    assert number == 8
    assert f"convict {liar}" in detail


def test_a_lie_about_a_sum_that_honest_fingerprints_hide_is_found_by_adding_again():
    """As unlikely as a collision is: the sum is compared itself, and not only fingerprints."""
    simulation = simulate()
    subject = Subject(simulation.bundle, simulation.chain)
    honest = subject.aggregates[2]
    subject.aggregates[2] = shifted(2, None, honest)
    with pytest.raises(VerificationError, match="round 2: the ciphertexts do not add up"):
        redo_sums(subject)


def test_ciphertexts_that_were_shifted_against_each_other_fail():
    simulation = simulate()
    (first, a), (second, b), *others = simulation.bundle.ciphertexts.items()
    ciphertexts = dict([(first, moved(a, 1)), (second, moved(b, -1)), *others])
    number, detail = outcome(simulation, ciphertexts=ciphertexts)
    assert number == 8
    assert "digest" in detail
    assert "convict" not in detail  # whoever wrote the bundle did it, and no node


def moved(frame, step):
    """Add a number to the first residue of an expanded frame."""
    data = bytearray(base64.b64decode(frame))
    residue = int.from_bytes(data[184:191], "little") + step
    data[184:191] = residue.to_bytes(7, "little")
    return base64.b64encode(data).decode()


def test_swapped_ciphertexts_fail():
    simulation = simulate()
    (first, a), (second, b), *others = simulation.bundle.ciphertexts.items()
    ciphertexts = dict([(first, b), (second, a), *others])
    number, detail = outcome(simulation, ciphertexts=ciphertexts)
    assert number == 8
    assert "bound to node" in detail


def test_a_round_with_only_some_of_its_ciphertexts_fails():
    simulation = simulate()
    ciphertexts = dict(list(simulation.bundle.ciphertexts.items())[1:])
    number, detail = outcome(simulation, ciphertexts=ciphertexts)
    assert number == 9
    assert "but not that of" in detail


def test_ciphertexts_of_some_rounds_only_do_not_make_the_run_re_executed():
    simulation = simulate()
    ciphertexts = dict(list(simulation.bundle.ciphertexts.items())[:4])
    bundle = simulation.bundle.model_copy(update={"ciphertexts": ciphertexts})
    report = verify_bundle(bundle, chain=simulation.chain)
    assert report.exit_code == 0
    assert report.level == "fingerprints"
    assert report.steps[8].detail == "round 1 of 3 added up again"
