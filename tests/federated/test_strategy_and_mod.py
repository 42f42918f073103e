"""What the strategy takes and refuses, and how it and the mod meet plain Flower."""

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, MetricRecord
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import FedAvg, FedProx
from tiny_app import tiny_app

from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError, QuorumError, StrategyRefused
from twopm_flower.federated import EncryptedAggregation, EncryptionMod, RoundCallback

REFUSED = {
    "FedAdam": {},
    "FedYogi": {},
    "FedAdagrad": {},
    "FedAvgM": {"server_momentum": 0.9},
    "FedMedian": {},
    "FedTrimmedAvg": {},
    "Krum": {},
    "MultiKrum": {},
    "Bulyan": {},
    "QFedAvg": {"client_learning_rate": 0.1},
    "FedXgbBagging": {},
    "FedXgbCyclic": {},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_strategy_that_has_to_see_updates_is_refused_with_the_reason(name):
    base = getattr(flower, name)(**REFUSED[name])
    with pytest.raises(StrategyRefused, match=rf"{name} does more .* than FedAvg's weighted mean"):
        EncryptedAggregation(base)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DifferentialPrivacyServerSideFixedClipping", {"clipping_norm": 1.0}),
        ("DifferentialPrivacyClientSideFixedClipping", {"clipping_norm": 1.0}),
        ("DifferentialPrivacyServerSideAdaptiveClipping", {"clipped_count_stddev": 9.0}),
        ("DifferentialPrivacyClientSideAdaptiveClipping", {"clipped_count_stddev": 9.0}),
    ],
)
def test_server_side_privacy_wrappers_are_refused_with_the_reason(name, options):
    wrapper = getattr(flower, name)(FedAvg(), 1.0, num_sampled_clients=3, **options)
    with pytest.raises(StrategyRefused, match=rf"{name} is not built on FedAvg.*Wrap FedAvg"):
        EncryptedAggregation(wrapper)


@pytest.mark.parametrize("base", [FedAvg(), FedProx(proximal_mu=0.1)], ids=["FedAvg", "FedProx"])
def test_linear_strategies_are_taken(base):
    assert EncryptedAggregation(base).base is base


def test_a_subclass_that_keeps_the_weighted_mean_is_taken():
    class MyFedAvg(FedAvg):
        """Samples in its own way."""

    EncryptedAggregation(MyFedAvg())


def test_central_evaluation_is_refused_before_anything_is_sent(federate):
    federation = federate()
    grid = federation.make_grid()
    strategy = EncryptedAggregation(FedAvg(), task=federation.task_id, home=federation.coordinator)
    with pytest.raises(StrategyRefused, match="this server cannot read it"):
        strategy.start(grid, ArrayRecord(), evaluate_fn=lambda *_: MetricRecord())
    assert grid.sent == []


def test_too_few_nodes_end_the_wait_with_the_command_to_start_more(federate):
    federation = federate()
    grid = federation.make_grid()
    for number in (3, 4):
        del grid.contexts[number]
    with pytest.raises(QuorumError) as caught:
        federation.run(nodes_wait_s=0.2)
    assert "2 nodes are connected after 0 s, 3 are needed" in str(caught.value)
    assert "flower-supernode --superlink" in str(caught.value)
    assert grid.sent == []


class Diary(RoundCallback):
    def __init__(self, fail_in=None):
        self.entries = []
        self.fail_in = fail_in

    def run_started(self):
        self.entries.append("started")

    def before_round(self, round_):
        self.entries.append(f"before {round_}")
        if round_ == self.fail_in:
            raise RuntimeError("a callback of somebody's own fails")

    def manifest_committed(self, manifest):
        self.entries.append(f"manifest {manifest.round}/{manifest.attempt}")

    def round_completed(self, bundle):
        self.entries.append(f"round {len(bundle.rounds)}")

    def run_completed(self, bundle, statement, signatures):
        self.entries.append(f"completed with {len(signatures)}")
        assert bundle.rounds[-1].models
        assert statement.round == len(bundle.rounds)

    def run_ended(self):
        self.entries.append("ended")


def test_callbacks_are_called_in_order(federate):
    diary = Diary()
    federate(rounds=2).run(callbacks=[diary])
    assert diary.entries == [
        "started",
        "before 1",
        "manifest 1/1",
        "round 1",
        "before 2",
        "manifest 2/1",
        "round 2",
        "completed with 4",
        "ended",
    ]


def test_callbacks_are_told_of_the_end_of_a_run_that_failed(federate):
    diary = Diary(fail_in=2)
    federation = federate(rounds=2)
    with pytest.raises(RuntimeError, match="somebody's own"):
        federation.run(callbacks=[diary])
    assert diary.entries[-2:] == ["before 2", "ended"]
    assert len(federation.bundle().rounds) == 1


def test_local_differential_privacy_composes_behind_the_encryption(federate):
    private = federate(rounds=1)
    # Flower's mod looks for trained arrays in every reply, so it stands aside in evaluations.
    local_dp = LocalDpMod(0.05, 0.1, 10.0, 1e-5)

    def in_training(message, context, call_next):
        if message.metadata.message_type == MessageType.TRAIN:
            return local_dp(message, context, call_next)
        return call_next(message, context)

    mods = (EncryptionMod(), in_training)
    private.run(tiny_app(mods=mods))
    models = [node.model(1) for node in private.nodes]
    for model in models[1:]:
        np.testing.assert_array_equal(model["weight"], models[0]["weight"])
    moved = models[0]["weight"] - private.initial["weight"]
    # Clipped to a norm of 0.05 each, then noise: nothing like the plain step of about 1.
    assert 0 < np.linalg.norm(moved) < 0.6
    plain = federate(rounds=1)
    plain.run()
    assert not np.array_equal(plain.nodes[0].model(1)["weight"], models[0]["weight"])


def test_a_client_app_without_the_mod_is_told_what_to_add(federate):
    federation = federate(rounds=1)
    with pytest.raises(QuorumError) as caught:
        federation.run(tiny_app(mods=()))
    assert "the node's reply is not encrypted" in str(caught.value)
    assert "ClientApp(mods=[EncryptionMod()])" in str(caught.value)


def test_a_server_without_the_strategy_is_told_what_to_wrap(federate):
    federation = federate(rounds=1)
    grid = federation.make_grid()
    # Straight to the nodes: this grid reads our orders, and there are none.
    plain = super(type(grid), grid)
    replies = []

    def deliver(message):
        replies.append(plain.deliver(message))
        return replies[-1]

    grid.deliver = deliver
    arrays = ArrayRecord({n: Array(v) for n, v in federation.initial.items()})
    FedAvg().start(grid=grid, initial_arrays=arrays, num_rounds=1)
    assert replies
    for reply in replies:
        assert reply.has_error()
        assert "carries no twopm-flower exchange" in reply.error.reason
        assert "EncryptedAggregation(FedAvg(...))" in reply.error.reason
    assert federation.nodes[0].progress.model_digest is None


def start(federation, **changes):
    strategy = EncryptedAggregation(FedAvg(), task=federation.task_id, home=federation.coordinator)
    options = {
        "grid": federation.make_grid(),
        "initial_arrays": ArrayRecord({n: Array(v) for n, v in federation.initial.items()}),
        "num_rounds": federation.terms.rounds,
        "train_config": ConfigRecord(dict(federation.terms.train_config)),
        **changes,
    }
    return strategy.start(**options)


def test_an_app_that_wants_something_else_than_the_task_is_refused_at_the_start(federate):
    federation = federate(rounds=2)
    other = ArrayRecord({n: Array(v + 1) for n, v in federation.initial.items()})
    for changes, name in (
        ({"num_rounds": 3}, "rounds"),
        ({"train_config": ConfigRecord({"lr": 1.0})}, "train_config"),
        ({"initial_arrays": other}, "initial_model"),
    ):
        with pytest.raises(ConfigError, match=f"the app wants {name} .*twopm task create"):
            start(federation, **changes)
        assert federation.grid.sent == []


def test_a_task_that_is_not_prepared_here_is_refused(federate):
    federation = federate()
    strategy = EncryptedAggregation(FedAvg(), task="0x" + "00" * 32, home=federation.coordinator)
    with pytest.raises(ConfigError, match=r"terms\.json is missing"):
        strategy.start(federation.make_grid(), ArrayRecord())


def test_the_task_may_come_from_the_environment(federate, monkeypatch):
    federation = federate()
    monkeypatch.setenv("TWOPM_TASK", federation.task_id)
    assert load_settings(federation.coordinator).task == federation.task_id


def test_flowers_methods_need_a_run_under_way(federate):
    strategy = EncryptedAggregation(FedAvg())
    with pytest.raises(ConfigError, match=r"Call start\(\)"):
        strategy.aggregate_train(1, [])
