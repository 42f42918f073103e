"""Honest runs: what is computed, what is kept, what a stranger can verify."""

import base64
from dataclasses import dataclass

import numpy as np
import pytest
from federation import MAX_NODES, Federation, federation
from flwr.serverapp.strategy import FedProx, Result
from quantised_fedavg import plain_mean, quantised_run
from tiny_app import local_data, measure, train_locally

from twopm_flower.federated import RoundCallback
from twopm_flower.verify import verify_bundle


class Snapshots(RoundCallback):
    """Keeps every model as the nodes opened it, by round and node."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.models: dict[int, list[dict[str, np.ndarray]]] = {}
        self.digests: dict[int, set[str | None]] = {}

    def round_completed(self, bundle) -> None:
        self.take()

    def take(self) -> None:
        for node in self.federation.nodes:
            progress = node.progress
            models = self.models.setdefault(progress.opened_round, [])
            models.append(node.model(progress.opened_round))
            self.digests.setdefault(progress.opened_round, set()).add(progress.model_digest)


def run_and_watch(federation: Federation, **options) -> Snapshots:
    snapshots = Snapshots(federation)
    federation.run(callbacks=[snapshots], **options)
    snapshots.take()
    return snapshots


@dataclass
class HonestRun:
    federation: Federation
    snapshots: Snapshots
    result: Result
    models: list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def honest(stage, tmp_path_factory) -> HonestRun:
    """Three rounds of four honest nodes, looked at by many tests."""
    made = federation(stage, tmp_path_factory.mktemp("honest"), rounds=3)
    snapshots = Snapshots(made)
    result = made.run(callbacks=[snapshots])
    snapshots.take()
    models = quantised_run(made.initial, [0, 1, 2, 3], 3, clip=made.terms.clip, max_nodes=MAX_NODES)
    return HonestRun(made, snapshots, result, models)


def assert_same(model, expected) -> None:
    assert model.keys() == expected.keys()
    for name, array in expected.items():
        assert model[name].dtype == np.float32
        np.testing.assert_array_equal(model[name], array)


def test_every_node_opens_in_every_round_the_model_that_the_formulas_give(honest):
    assert sorted(honest.snapshots.models) == [0, 1, 2, 3]
    for round_, model in enumerate(honest.models):
        assert len(honest.snapshots.models[round_]) == 4
        for opened in honest.snapshots.models[round_]:
            assert_same(opened, model)
        assert len(honest.snapshots.digests[round_]) == 1
    files = {
        (node.folder.path / "model-3.safetensors").read_bytes() for node in honest.federation.nodes
    }
    assert len(files) == 1


def test_the_encrypted_mean_is_fedavgs_weighted_mean_to_within_the_quantisation(honest):
    initial = honest.federation.initial
    expected = plain_mean(initial, {i: train_locally(initial, i) for i in range(4)})
    for name, array in honest.models[1].items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_a_run_without_encryption_gives_bit_equal_models_in_every_round(honest, federate):
    plain = run_and_watch(federate(rounds=3, trust_mode="plaintext"))

    assert sorted(plain.models) == [0, 1, 2, 3]
    for round_ in range(4):
        for model in plain.models[round_]:
            assert_same(model, honest.snapshots.models[round_][0])


def test_fedprox_trains_with_its_proximal_term_and_averages_exactly(honest, federate):
    federation = federate(rounds=2, proximal_mu=0.5)
    federation.run(base=FedProx(proximal_mu=0.5))

    expected = quantised_run(
        federation.initial, [0, 1, 2, 3], 2, clip=4.0, max_nodes=MAX_NODES, proximal_mu=0.5
    )
    for node in federation.nodes:
        assert_same(node.model(2), expected[2])
    assert not np.array_equal(expected[2]["weight"], honest.models[2]["weight"])


def test_training_metrics_open_as_sums_over_all_rows(honest):
    for round_ in (1, 2, 3):
        shown = [measure(honest.models[round_ - 1], i, held_out=False) for i in range(4)]
        opened = honest.result.train_metrics_clientapp[round_]
        assert set(opened) == {"correct", "loss"}
        assert opened["correct"] == sum(metrics["correct"] for metrics in shown)
        loss = sum(metrics["loss"] * metrics["num-examples"] for metrics in shown)
        assert opened["loss"] == pytest.approx(loss, abs=0.2)


def test_evaluations_open_as_sums_over_all_held_out_rows_filed_under_the_models_round(honest):
    rows = sum(len(local_data(i, held_out=True)[1]) for i in range(4))
    for round_ in (0, 1, 2, 3):
        shown = [measure(honest.models[round_], i, held_out=True) for i in range(4)]
        opened = honest.result.evaluate_metrics_clientapp[round_]
        assert opened["num-examples"] == rows
        assert opened["correct"] == sum(metrics["correct"] for metrics in shown)
        loss = sum(metrics["loss"] * metrics["num-examples"] for metrics in shown)
        assert opened["loss"] == pytest.approx(loss, abs=1e-3)
        assert opened["mean-loss"] == pytest.approx(loss / rows, abs=1e-4)


def test_a_stranger_verifies_the_bundle_against_the_chain(honest):
    federation = honest.federation
    report = verify_bundle(federation.bundle(), chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure
    assert (report.level, report.anchored, report.finalised) == ("fingerprints", True, True)
    assert report.rounds == report.planned_rounds == 3
    task = federation.stage.connector.task(federation.task_id)
    assert task.state == "finalised"
    assert task.model_digest == federation.nodes[0].progress.model_digest


def test_an_auditor_with_the_ciphertexts_re_executes_every_sum(honest):
    federation = honest.federation
    public = federation.bundle()
    assert public.ciphertexts == {}

    private = public.model_copy(update={"ciphertexts": federation.store.ciphertexts(public)})
    report = verify_bundle(private, chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure
    assert report.level == "re-executed"

    digest = public.rounds[1].manifest.survivors[2].update_digest
    frame = bytearray(base64.b64decode(private.ciphertexts[digest]))
    frame[-40] ^= 1
    changed = {**private.ciphertexts, digest: base64.b64encode(bytes(frame)).decode()}
    report = verify_bundle(private.model_copy(update={"ciphertexts": changed}), chain=None)
    assert report.first_failure is not None
    assert report.first_failure.number == 8


def test_kept_ciphertexts_are_readable_by_the_coordinator_alone(honest):
    files = list((honest.federation.store.folder / "ciphertexts").iterdir())
    assert len(files) == 4 * 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_result_holds_the_last_aggregate_still_encrypted(honest):
    (array,) = honest.result.arrays.values()
    assert array.stype == "twopm.aggregate/v1"
    bundle = honest.federation.bundle()
    assert bytes(array.data) == bundle.artifact(bundle.rounds[-1].manifest.aggregate_digest)


def test_timings_name_every_node_and_its_upload(honest):
    timings = honest.federation.store.load_timings()
    assert [entry.round for entry in timings.rounds] == [1, 2, 3]
    for entry in timings.rounds:
        assert set(entry.upload_bytes) == set(honest.federation.roster.nodes)
        assert min(entry.upload_bytes.values()) > 100
        assert entry.attempts == 1


def test_values_beyond_the_clip_are_clipped_and_counted(federate, caplog):
    clip = 0.05
    federation = federate(rounds=1, clip=clip)
    with caplog.at_level("WARNING"):
        federation.run()

    trained = {i: train_locally(federation.initial, i) for i in range(4)}
    beyond = {
        i: sum(
            int((np.abs(w[n].astype(float) - federation.initial[n].astype(float)) > clip).sum())
            for n in w
        )
        for i, w in trained.items()
    }
    assert max(beyond.values()) > 0
    said = [r.getMessage() for r in caplog.records if "were clipped" in r.getMessage()]
    assert sorted(said) == sorted(
        f"round 1: {count} of 4 values were clipped to ±0.05" for count in beyond.values() if count
    )
    expected = quantised_run(federation.initial, [0, 1, 2, 3], 1, clip=clip, max_nodes=MAX_NODES)
    assert_same(federation.nodes[0].model(1), expected[1])
