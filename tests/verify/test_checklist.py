"""The checklist as a whole: what it reports, of which runs."""

import pytest
from checklist_outcome import outcome
from run_simulator import simulate

from twopm_flower.errors import ChainUnavailable, RecordError, WrongChain
from twopm_flower.verify import STEPS, load_bundle, verify_bundle


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


def test_a_bundle_file_comes_back_as_it_was_written(tmp_path):
    bundle = simulate().bundle
    path = tmp_path / "run.json"
    path.write_bytes(bundle.to_bytes())
    assert load_bundle(path) == bundle


def test_a_missing_bundle_says_which_command_writes_one(tmp_path):
    with pytest.raises(RecordError, match="twopm bundle export"):
        load_bundle(tmp_path / "none.json")
