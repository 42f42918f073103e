"""One lie at a time, told consistently: the checklist names the step that it breaks."""

import base64
from dataclasses import replace

import numpy as np
import pytest
from memory_chain import word
from run_simulator import RunSimulator, simulate

from twopm_flower.errors import ChainUnavailable, RecordError, WrongChain
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.records.manifest import updates_root
from twopm_flower.records.statements import KeyDeal, ModelStatement, sign
from twopm_flower.verify import STEPS, load_bundle, verify_bundle


def outcome(simulation, **changes):
    """Return (number, detail) of the first step that fails."""
    bundle = simulation.bundle.model_copy(update=changes)
    report = verify_bundle(bundle, chain=simulation.chain)
    assert report.exit_code == 1
    failure = report.first_failure
    assert all(step.status != "failed" for step in report.steps[failure.number :])
    return failure.number, failure.detail


def with_round(bundle, number, **changes):
    """Return the rounds with one of them changed."""
    rounds = list(bundle.rounds)
    rounds[number - 1] = rounds[number - 1].model_copy(update=changes)
    return tuple(rounds)


@pytest.mark.parametrize("trust_mode", ["shared-key", "plaintext"])
def test_an_honest_run_passes_all_twelve_steps(trust_mode):
    simulation = simulate(trust_mode=trust_mode)
    report = verify_bundle(simulation.bundle, chain=simulation.chain)
    assert [step.number for step in report.steps] == list(range(1, 13))
    assert {step.status for step in report.steps} == {"passed"}
    assert report.exit_code == 0
    assert (report.level, report.anchored, report.finalised) == ("re-executed", True, True)


def test_a_public_bundle_is_verified_by_fingerprints_and_says_so():
    simulation = simulate(ciphertexts=False)
    report = verify_bundle(simulation.bundle, chain=simulation.chain)
    assert report.exit_code == 0
    assert report.level == "fingerprints"
    assert report.steps[8].status == "skipped"
    assert "sum checked by fingerprints, not re-executed" in report.steps[8].detail


def test_without_a_chain_all_can_hold_but_the_run_is_not_anchored():
    report = verify_bundle(simulate().bundle, chain=None)
    assert report.exit_code == 2
    assert not report.anchored
    assert not report.finalised
    skipped = [step.number for step in report.steps if step.status == "skipped"]
    assert skipped == [2, 10]
    assert any("Not anchored" in note for note in report.notes)


def test_a_chain_that_does_not_answer_leaves_the_run_unanchored():
    simulation = simulate()

    def unreachable():
        raise ChainUnavailable("connection refused")

    simulation.chain.check = unreachable
    report = verify_bundle(simulation.bundle, chain=simulation.chain)
    assert report.exit_code == 2
    assert "connection refused" in report.steps[1].detail


def test_somebody_elses_chain_fails_the_step_of_the_task():
    simulation = simulate()

    def foreign():
        raise WrongChain("genesis differs")

    simulation.chain.check = foreign
    assert outcome(simulation) == (2, "genesis differs")


def test_a_plaintext_task_says_that_nothing_was_encrypted():
    simulation = simulate(trust_mode="plaintext")
    report = verify_bundle(simulation.bundle, chain=simulation.chain)
    assert any("not encrypted" in note for note in report.notes)
    assert "not encrypted" in report.steps[2].detail


def test_progress_hears_of_each_step_in_order():
    heard = []
    report = verify_bundle(simulate().bundle, chain=None, progress=heard.append)
    assert tuple(heard) == report.steps
    assert [step.title for step in heard] == [title for title, _ in STEPS]


def test_metrics_are_the_sums_of_all_nodes_in_their_own_units():
    report = verify_bundle(simulate(nodes=3, repeated_round=None).bundle, chain=None)
    assert [entry.model_round for entry in report.metrics] == [0, 1, 2, 3]
    assert report.metrics[0].training is None
    assert report.metrics[1].training == {"correct": 165.0, "rows": 180.0, "loss": 72.0}
    assert report.metrics[3].samples == 180
    assert report.metrics[3].evaluation == {"correct": 36.0, "rows": 36.0, "loss": 10.8}
    assert report.metrics[1].evaluation["correct"] == 33.0


def test_the_report_as_json_names_the_failure_and_the_exit_code():
    simulation = simulate()
    data = verify_bundle(simulation.bundle, chain=None).to_json()
    assert (data["exit_code"], data["first_failure"]) == (2, None)
    simulation.chain.records.pop()
    data = verify_bundle(simulation.bundle, chain=simulation.chain).to_json()
    assert (data["exit_code"], data["first_failure"]) == (1, 10)
    assert data["steps"][9]["status"] == "failed"


def test_an_unfinished_run_verifies_and_is_not_called_final():
    simulation = simulate(rounds=2, planned=5)
    report = verify_bundle(simulation.bundle, chain=simulation.chain)
    assert report.exit_code == 0
    assert not report.finalised
    assert (report.rounds, report.planned_rounds) == (2, 5)
    assert "unfinished" in report.steps[10].detail


def test_a_finished_run_whose_model_is_not_final_on_chain_fails():
    number, detail = outcome(simulate(final=False))
    assert number == 11
    assert "not final on chain" in detail


# --- 1 to 3: bundle, task, members --------------------------------------------------------


def test_a_bundle_that_was_not_read_from_canonical_bytes_is_checked_like_one_that_was():
    number, detail = outcome(simulate(), aggregates={word("x"): "no base64"})
    assert number == 1
    assert "aggregates" in detail


def test_parameters_that_are_not_the_named_ones_fail():
    simulation = simulate()
    terms = simulation.bundle.terms
    number, detail = outcome(
        simulation, terms=terms.model_copy(update={"parameters_id": word("other")})
    )
    assert number == 1
    assert "parameters_id" in detail


def test_parameters_that_no_formula_gives_fail():
    simulation = simulate()
    terms = simulation.bundle.terms
    parameters = {**terms.parameters, "limit": terms.parameters["limit"] + 1}
    number, _ = outcome(simulation, terms=terms.model_copy(update={"parameters": parameters}))
    assert number == 1


def test_a_layout_that_is_not_the_named_one_fails():
    simulation = simulate()
    terms = simulation.bundle.terms
    number, detail = outcome(
        simulation, terms=terms.model_copy(update={"arrays": terms.arrays[::-1]})
    )
    assert number == 1
    assert "layout_digest" in detail


def test_an_encrypted_task_with_parameters_of_plaintext_fails():
    simulation = simulate(trust_mode="plaintext")
    terms = simulation.bundle.terms
    number, detail = outcome(
        simulation, terms=terms.model_copy(update={"trust_mode": "shared-key"})
    )
    assert number == 1
    assert "backend" in detail


def test_an_artifact_that_no_manifest_lists_fails():
    simulation = simulate()
    ciphertexts = {**simulation.bundle.ciphertexts, word("stray"): ""}
    assert outcome(simulation, ciphertexts=ciphertexts)[0] == 1


def test_a_trust_mode_of_a_later_release_is_named():
    simulation = simulate()
    terms = simulation.bundle.terms.model_copy(update={"trust_mode": "one-time-key"})
    number, detail = outcome(simulation, terms=terms)
    assert number == 1
    assert "cannot be verified by this release" in detail


def test_more_members_than_the_sums_have_room_for_fail():
    number, detail = outcome(simulate(room=3, nodes=4, repeated_round=None, rounds=1, planned=9))
    assert number == 1
    assert "without wrapping" in detail


def test_more_rounds_than_planned_fail():
    number, detail = outcome(simulate(rounds=3, planned=2))
    assert number == 1
    assert "plan 2" in detail


def test_rounds_out_of_order_fail():
    simulation = simulate()
    assert outcome(simulation, rounds=simulation.bundle.rounds[::-1])[0] == 1


@pytest.mark.parametrize("field", ["chain_id", "genesis_hash", "node_registry", "task_registry"])
def test_a_bundle_of_another_deployment_fails(field):
    simulation = simulate()
    other = {"chain_id": 1, "genesis_hash": word("other")}.get(field, "0x" + "00" * 19 + "44")
    deployment = simulation.bundle.deployment.model_copy(update={field: other})
    number, detail = outcome(simulation, deployment=deployment)
    assert number == 2
    assert field in detail


@pytest.mark.parametrize(
    "field", ["rounds", "min_contributors", "quorum", "max_samples", "members"]
)
def test_a_task_that_was_created_with_other_settings_fails(field):
    simulation = simulate()
    chain = simulation.chain
    chain.state = replace(chain.state, **{field: getattr(chain.state, field) + 1})
    number, detail = outcome(simulation)
    assert number == 2
    assert field in detail


@pytest.mark.parametrize("field", ["terms_digest", "roster_digest"])
def test_a_task_that_was_created_with_other_digests_fails(field):
    simulation = simulate()
    simulation.chain.state = replace(simulation.chain.state, **{field: word("other")})
    number, detail = outcome(simulation)
    assert number == 2
    assert field in detail


def test_a_cancelled_task_fails():
    simulation = simulate()
    simulation.chain.state = replace(simulation.chain.state, state="cancelled")
    assert outcome(simulation) == (2, "the task is cancelled on chain")


def test_a_member_with_a_swapped_sealing_key_fails():
    simulation = simulate()
    first, *others = simulation.chain.roster
    simulation.chain.roster = (replace(first, sealing_key=word("other")), *others)
    number, detail = outcome(simulation)
    assert number == 2
    assert "roster" in detail


def test_a_member_that_did_not_sign_for_itself_fails():
    simulator = RunSimulator()
    simulation = simulator.build()
    roster = simulation.bundle.roster
    first, second, *others = roster.members
    forged = roster.model_copy(
        update={
            "members": (
                first.model_copy(update={"signature": second.signature}),
                second,
                *others,
            )
        }
    )
    assert outcome(simulation, roster=forged)[0] == 3


def test_a_member_with_more_samples_than_allowed_fails():
    number, detail = outcome(simulate(max_samples=60))
    assert number == 3
    assert "the terms allow 1 to 60" in detail


def test_a_key_dealt_by_another_than_the_first_member_fails():
    number, detail = outcome(simulate(dealer=1))
    assert number == 3
    assert "dealer" in detail


def test_an_encrypted_task_without_a_key_deal_fails():
    assert outcome(simulate(), key_deal=None)[0] == 3


def test_a_plaintext_task_with_a_key_deal_fails():
    deal = simulate().bundle.key_deal
    assert outcome(simulate(trust_mode="plaintext"), key_deal=deal)[0] == 3


@pytest.mark.parametrize("field", ["task_id", "roster_digest"])
def test_a_key_deal_for_another_task_or_roster_fails(field):
    simulator = RunSimulator()
    simulation = simulator.build()
    honest = simulation.bundle.key_deal.statement
    statement = KeyDeal(**{**honest.model_dump(), field: word("other")})
    deal = sign(statement, simulator.nodes[0].signer, simulator.domain)
    number, detail = outcome(simulation, key_deal=deal)
    assert number == 3
    assert field in detail


# --- 4 to 6: statements, manifests, chaining ----------------------------------------------


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


# --- 7 to 9: sums -------------------------------------------------------------------------


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


def test_fingerprints_cannot_outvote_the_ciphertexts_themselves():
    """Two nodes shift their fingerprints against each other; only the lie about a sum shows."""

    def shift(node, points, values):
        offset = {addresses[0]: 1, addresses[1]: MODULUS - 1}.get(node, 0)
        return tuple((value + offset) % MODULUS for value in values)

    simulator = RunSimulator(hooks={"fingerprints": shift})
    addresses = [node.address for node in simulator.nodes]
    simulation = simulator.build()
    assert verify_bundle(simulation.bundle, chain=simulation.chain).exit_code == 0


def test_a_node_that_vouches_for_a_shifted_sum_is_convicted_by_its_ciphertext():
    def vouch(node, points, values):
        if node != liar:
            return values
        return tuple((v + plus_one(rho)) % MODULUS for v, rho in zip(values, points, strict=True))

    def plus_one(rho):
        return sum(pow(rho, j + 1, MODULUS) for j in range(coefficients))

    hooks = {"aggregate": shifted, "fingerprints": vouch}
    simulator = RunSimulator(hooks=hooks)
    liar = simulator.nodes[1].address
    coefficients = simulator.parameters.coefficients(simulator.layout.size)
    number, detail = outcome(simulator.build())
    assert number == 9
    assert "do not add up" in detail


def test_ciphertexts_that_were_shifted_against_each_other_fail():
    simulation = simulate()
    (first, a), (second, b), *others = simulation.bundle.ciphertexts.items()
    ciphertexts = dict([(first, moved(a, 1)), (second, moved(b, -1)), *others])
    number, detail = outcome(simulation, ciphertexts=ciphertexts)
    assert number == 9
    assert "digest" in detail


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
    assert number == 9
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
    assert "rounds [1] of 3" in report.steps[8].detail


# --- 10 and 11: chain, models -------------------------------------------------------------


def test_a_round_that_is_not_on_chain_fails():
    simulation = simulate()
    simulation.chain.records.pop()
    number, detail = outcome(simulation)
    assert number == 10
    assert "not recorded" in detail


def test_a_bundle_that_leaves_out_the_last_round_fails():
    simulation = simulate()
    bundle = simulation.bundle
    number, detail = outcome(
        simulation,
        rounds=bundle.rounds[:2],
        aggregates={
            entry.manifest.aggregate_digest: bundle.aggregates[entry.manifest.aggregate_digest]
            for entry in bundle.rounds[:2]
        },
        ciphertexts={},
        closing=(),
        finalisation=None,
    )
    assert number == 10
    assert "leaves it out" in detail


def test_a_bundle_that_hides_a_superseded_attempt_fails():
    simulation = simulate()
    rounds = with_round(simulation.bundle, 2, superseded=())
    assert outcome(simulation, rounds=rounds)[0] == 10


def test_a_bundle_without_its_chain_pointers_is_compared_with_the_chain_all_the_same():
    simulation = simulate()
    rounds = with_round(simulation.bundle, 3, record=None)
    bundle = simulation.bundle.model_copy(update={"rounds": rounds, "finalisation": None})
    assert verify_bundle(bundle, chain=simulation.chain).exit_code == 0
    simulation.chain.records[-1] = replace(
        simulation.chain.records[-1], manifest_digest=word("other")
    )
    assert verify_bundle(bundle, chain=simulation.chain).first_failure.number == 10


def test_a_head_that_does_not_follow_from_the_records_fails():
    simulation = simulate()
    rounds = with_round(simulation.bundle, 1, record=None)
    simulation.chain.records[0] = replace(simulation.chain.records[0], head=word("other"))
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 10
    assert "the head on chain" in detail


def test_a_round_opened_by_fewer_than_the_quorum_fails():
    def absent(number, node, fields):
        return None if node != simulator.nodes[0].address and number == 2 else fields

    simulator = RunSimulator(hooks={"model": absent})
    assert outcome(simulator.build())[0] == 11


def test_one_node_that_opened_another_model_fails_the_run():
    def dissent(number, node, fields):
        chosen = number == 2 and node == simulator.nodes[2].address
        return {**fields, "model_digest": word("other")} if chosen else fields

    simulator = RunSimulator(hooks={"model": dissent})
    number, detail = outcome(simulator.build())
    assert number == 11
    assert "2 different models" in detail


def test_a_model_signed_by_a_stranger_fails():
    simulation = simulate(nodes=4)
    stranger = RunSimulator(nodes=5).nodes[4]
    statement = simulation.bundle.rounds[0].models[0].statement
    signed = sign(statement, stranger.signer, simulation.bundle.deployment.domain)
    models = sorted(
        (*simulation.bundle.rounds[0].models, signed), key=lambda entry: entry.node.lower()
    )
    rounds = with_round(simulation.bundle, 1, models=tuple(models))
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 11
    assert "not a member" in detail


def test_metric_sums_that_nobody_signed_fail():
    simulation = simulate()
    metrics = simulation.bundle.rounds[1].metrics
    forged = metrics.model_copy(update={"sums": {**metrics.sums, "correct": 0}})
    rounds = with_round(simulation.bundle, 2, metrics=forged)
    assert outcome(simulation, rounds=rounds)[0] == 11


@pytest.mark.parametrize(
    "change",
    [{"correct": -1}, {"correct": 230}, {"rows": 4001}, {"loss": 2**50}, {"extra": 1}],
)
def test_impossible_metric_sums_fail_even_if_all_signed_them(change):
    simulation = simulate(hooks={"sums": lambda number, sums: {**sums, **change}})
    assert outcome(simulation)[0] == 11


def test_another_final_model_on_chain_fails():
    simulation = simulate()
    simulation.chain.final = replace(simulation.chain.final, model_digest=word("other"))
    assert outcome(simulation)[0] == 11


def test_a_final_model_below_the_quorum_fails():
    simulation = simulate()
    simulation.chain.final = replace(simulation.chain.final, signers=1)
    assert outcome(simulation)[0] == 11


def test_a_model_statement_for_another_round_fails():
    simulator = RunSimulator()
    simulation = simulator.build()
    models = simulation.bundle.rounds[2].models
    statement = ModelStatement(**{**models[0].statement.model_dump(), "round": 2})
    signer = next(n.signer for n in simulator.nodes if n.address == models[0].node)
    forged = (sign(statement, signer, simulator.domain), *models[1:])
    rounds = with_round(simulation.bundle, 3, models=forged)
    assert outcome(simulation, rounds=rounds)[0] == 11


# --- 12: evaluation -----------------------------------------------------------------------


def test_evaluations_of_fewer_than_all_survivors_fail():
    simulation = simulate()
    evaluations = simulation.bundle.rounds[0].evaluations[1:]
    rounds = with_round(simulation.bundle, 1, evaluations=evaluations)
    number, detail = outcome(simulation, rounds=rounds)
    assert number == 12
    assert "masks cancel" in detail


def test_an_evaluation_of_another_round_fails():
    simulation = simulate()
    evaluations = simulation.bundle.closing
    rounds = with_round(simulation.bundle, 1, evaluations=evaluations)
    assert outcome(simulation, rounds=rounds)[0] == 12


def test_more_correct_rows_than_rows_fail():
    def lie(model_round, node, values):
        return (values[1] + 1, *values[1:])

    number, detail = outcome(simulate(hooks={"counts": lie}))
    assert number == 12
    assert "impossible" in detail


def test_a_negative_sum_fails():
    simulation = simulate(hooks={"counts": lambda model_round, node, values: (-1, *values[1:])})
    assert outcome(simulation)[0] == 12


def test_a_model_without_an_evaluation_is_named_not_hidden():
    simulation = simulate()
    rounds = with_round(simulation.bundle, 2, evaluations=())
    bundle = simulation.bundle.model_copy(update={"rounds": rounds, "closing": ()})
    report = verify_bundle(bundle, chain=simulation.chain)
    assert report.exit_code == 0
    assert "none was opened for models [1, 3]" in report.steps[11].detail
    assert report.metrics[1].evaluation is None


# --- files --------------------------------------------------------------------------------


def test_a_bundle_file_comes_back_as_it_was_written(tmp_path):
    bundle = simulate().bundle
    path = tmp_path / "run.json"
    path.write_bytes(bundle.to_bytes())
    assert load_bundle(path) == bundle


def test_a_missing_bundle_says_which_command_writes_one(tmp_path):
    with pytest.raises(RecordError, match="twopm bundle export"):
        load_bundle(tmp_path / "none.json")
