"""One lie at a time, told consistently: steps 10 to 12 notice those about the outcome."""

from dataclasses import replace

import pytest
from checklist_outcome import outcome, with_round
from memory_chain import word
from run_simulator import RunSimulator, simulate

from twopm_flower.records.statements import ModelStatement, sign
from twopm_flower.verify import verify_bundle


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
    [{"correct": -1}, {"rows": 4001}, {"loss": 2**50}, {"extra": 1}],
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
