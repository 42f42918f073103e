"""A model with batch normalisation through the real mod: its statistics stay with each node."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from federation import (
    MAX_NODES,
    METRICS,
    RUN_CONFIG,
    Federation,
    Stage,
    provision,
    tell,
)
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from quantised_fedavg import quantised_mean
from safetensors.numpy import load_file
from tiny_app import SAMPLES, TRAIN_CONFIG

from twopm_flower.errors import ConfigError, QuorumError, RecordError
from twopm_flower.federated import (
    EncryptedAggregation,
    EncryptionMod,
    LocalGrid,
    SimulationOptions,
)
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.federated.exchange import TrainOrder
from twopm_flower.federated.terms import build_terms
from twopm_flower.node.coordinate import create_task, load_initial_model
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.terms import TaskTerms

EXCLUDED = ("*.running_mean", "*.running_var", "*.num_batches_tracked", "0.*")
STATISTICS = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
LOCAL = {*STATISTICS, "0.weight", "0.bias"}
FEDERATED = ["1.weight", "1.bias", "2.weight", "2.bias"]
ROUNDS = 2
BATCHES = 3


def network() -> torch.nn.Sequential:
    """A frozen layer, batch normalisation, and a layer on top."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    net[0].requires_grad_(False)
    return net


def initial_model() -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network().state_dict().items()}


@dataclass
class Seen:
    """What the apps were given and what they returned, in order, by node."""

    given: dict[int, list[dict[str, np.ndarray]]] = field(default_factory=dict)
    returned: dict[int, list[dict[str, np.ndarray]]] = field(default_factory=dict)
    evaluated: dict[int, list[dict[str, np.ndarray]]] = field(default_factory=dict)


def normalising_app(seen: Seen) -> ClientApp:
    """Return an app as any Flower app is written: it loads and returns the whole state."""
    app = ClientApp(mods=[EncryptionMod()])

    def loaded(message: Message) -> torch.nn.Sequential:
        net = network()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        return net

    def state(net: torch.nn.Sequential) -> dict[str, np.ndarray]:
        return {name: copy.deepcopy(t.numpy()) for name, t in net.state_dict().items()}

    @app.train()
    def train(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        net = loaded(message)
        seen.given.setdefault(index, []).append(state(net))
        generator = torch.Generator().manual_seed(index)
        optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
        net.train()
        for _ in range(BATCHES):
            x = torch.randn(8, 4, generator=generator) + index
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(net(x), x.sum(dim=1, keepdim=True)).backward()
            optimiser.step()
        seen.returned.setdefault(index, []).append(state(net))
        return answer(message, index, net)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        seen.evaluated.setdefault(index, []).append(state(loaded(message)))
        return answer(message, index)

    def answer(message: Message, index: int, net: torch.nn.Sequential | None = None) -> Message:
        content = RecordDict()
        if net is not None:
            content["arrays"] = ArrayRecord(net.state_dict())
        content["metrics"] = MetricRecord(
            {"num-examples": SAMPLES[index], "correct": 1, "loss": 0.5}
        )
        return Message(content, reply_to=message)

    return app


def normalising_federation(stage: Stage, folder: Path) -> Federation:
    return provision(stage, folder, normalising_terms(), initial_model(), SAMPLES[:3])


def normalising_terms(**changes):
    settings = {
        "title": "batch normalisation",
        "rounds": ROUNDS,
        "trust_mode": "shared-key",
        "clip": 4.0,
        "min_contributors": 3,
        "quorum": 3,
        "max_samples": max(SAMPLES),
        "max_nodes": MAX_NODES,
        "train_metrics": METRICS,
        "evaluation_metrics": METRICS,
        "train_config": TRAIN_CONFIG,
        "evaluate_config": {},
        "run_config": RUN_CONFIG,
        "app_bundle": app_bundle_digest(None),
        "dataset": {"app": "batch normalisation"},
        "excluded": EXCLUDED,
    }
    return build_terms(initial_model(), **{**settings, **changes})


@pytest.fixture(scope="module")
def ran(stage, tmp_path_factory):
    federation = normalising_federation(stage, tmp_path_factory.mktemp("excluded"))
    seen = Seen()
    federation.run(normalising_app(seen))
    return federation, seen


def test_the_terms_list_what_is_federated_and_nothing_else():
    terms = normalising_terms()
    assert [array.name for array in terms.arrays] == FEDERATED
    assert terms.excluded == EXCLUDED


def test_integers_in_the_model_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="num_batches_tracked") as caught:
        normalising_terms(excluded=EXCLUDED[:2])
    assert "excluded" in str(caught.value.hint)


def test_what_is_federated_becomes_the_exact_mean_and_the_same_everywhere(ran):
    federation, seen = ran
    base = {name: initial_model()[name] for name in FEDERATED}
    for round_ in range(ROUNDS):
        trained = {index: seen.returned[index][round_] for index in range(3)}
        base = quantised_mean(base, trained, clip=4.0, max_nodes=MAX_NODES)
    for node in federation.nodes:
        model = node.model(ROUNDS)
        assert sorted(model) == sorted(FEDERATED)
        assert all(model[name].tobytes() == base[name].tobytes() for name in FEDERATED)


def test_each_node_goes_on_with_its_own_statistics(ran):
    federation, seen = ran
    for index, node in enumerate(federation.nodes):
        first, second = seen.given[index]
        for name in LOCAL:
            assert first[name].tobytes() == initial_model()[name].tobytes()
            assert second[name].tobytes() == seen.returned[index][0][name].tobytes()
            assert node.folder.load_local()[name].tobytes() == (
                seen.returned[index][1][name].tobytes()
            )
        tracked = node.folder.load_local()["1.num_batches_tracked"]
        assert (tracked.dtype, tracked.shape, int(tracked)) == (np.int64, (), ROUNDS * BATCHES)
    means = {seen.returned[index][1]["1.running_mean"].tobytes() for index in range(3)}
    assert len(means) == 3


def test_evaluation_runs_on_the_opened_model_with_the_nodes_own_statistics(ran):
    federation, seen = ran
    for index, node in enumerate(federation.nodes):
        assert len(seen.evaluated[index]) == ROUNDS + 1
        first, last = seen.evaluated[index][0], seen.evaluated[index][-1]
        assert first["2.weight"].tobytes() == initial_model()["2.weight"].tobytes()
        for name in STATISTICS:
            assert first[name].tobytes() == seen.returned[index][0][name].tobytes()
        assert last["2.weight"].tobytes() == node.model(ROUNDS)["2.weight"].tobytes()
        for name in STATISTICS:
            assert last[name].tobytes() == seen.returned[index][1][name].tobytes()


def test_nothing_of_an_excluded_array_leaves_a_node(ran):
    federation, seen = ran
    # What a node starts from is public; all that it made of it is not.
    secrets = [
        values["1.running_mean"].tobytes() for index in range(3) for values in seen.returned[index]
    ]
    replies = [message.content for _, message in federation.grid.replied]
    assert len(replies) > 3 * ROUNDS
    for content in [*replies, *(content for _, content in federation.grid.sent)]:
        for record in content.array_records.values():
            for array in record.values():
                assert not any(secret in array.data for secret in secrets)
    for content in replies:
        assert {name for record in content.array_records.values() for name in record} <= {"update"}
    carried = [set(content["arrays"]) & LOCAL for _, content in federation.grid.sent]
    assert any(carried)
    # The initial model goes out with rounds 1 and 2, for nodes that missed the first.
    assert not any(carried[-3:])


def test_the_nodes_own_values_are_readable_by_their_owner_only(ran):
    federation, _ = ran
    file = federation.nodes[0].folder.path / "local.safetensors"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", STATISTICS)
def test_a_server_that_gives_one_node_other_statistics_is_stopped_by_it(stage, tmp_path, name):
    federation = normalising_federation(stage, tmp_path)
    grid = federation.make_grid(normalising_app(Seen()))

    def lie(order, index):
        if index != 1 or not isinstance(order, TrainOrder):
            return order
        return tell(order, initial={**order.initial, name: np.asarray(order.initial[name] + 1)})

    grid.orders.append(lie)
    with pytest.raises(QuorumError):
        federation.run(train_timeout_s=5.0)
    assert "excluded arrays" in federation.nodes[1].progress.halted
    assert not (federation.nodes[1].folder.path / "local.safetensors").exists()


def test_the_coordinator_keeps_the_initial_values_of_excluded_arrays_too(stage, tmp_path):
    federation = normalising_federation(stage, tmp_path)
    terms, initial = normalising_terms(title="another"), initial_model()
    swapped = {**initial, "1.running_mean": initial["1.running_mean"] + 1}
    with pytest.raises(ConfigError, match="initial excluded arrays"):
        create_task(federation.coordinator, stage.connector, terms, swapped)
    invitation = create_task(federation.coordinator, stage.connector, terms, initial)
    folder = federation.nodes[0].folder
    kept = load_initial_model(type(folder)(federation.coordinator / "tasks" / invitation.task_id))
    assert {name: a.tobytes() for name, a in kept.items()} == {
        name: a.tobytes() for name, a in initial.items()
    }


def test_a_simulation_excludes_what_its_options_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOPM_HOME", str(tmp_path))
    seen = Seen()
    configs = [{"partition-id": index, "num-partitions": 3} for index in range(3)]
    strategy = EncryptedAggregation(FedAvg(), simulation=SimulationOptions(excluded=EXCLUDED))
    strategy.start(
        grid=LocalGrid(normalising_app(seen), configs, dict(RUN_CONFIG)),
        initial_arrays=ArrayRecord(network().state_dict()),
        num_rounds=1,
        train_config=ConfigRecord(dict(TRAIN_CONFIG)),
    )
    folders = sorted(tmp_path.glob("simulation/node-*/tasks/*/local.safetensors"))
    assert len(folders) == 3
    # The first call is the enrolment's, which asks for the number of rows and keeps nothing.
    for index, file in enumerate(folders):
        kept = load_file(file)
        assert set(kept) == LOCAL
        assert kept["1.running_mean"].tobytes() == (
            seen.returned[index][1]["1.running_mean"].tobytes()
        )


def test_a_server_app_with_other_initial_statistics_does_not_start(stage, tmp_path):
    federation = normalising_federation(stage, tmp_path)
    federation.initial["1.running_mean"] += 1
    with pytest.raises(ConfigError, match="initial_excluded"):
        federation.run(normalising_app(Seen()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"excluded": ()}, "do not go with the digest"),
        ({"initial_excluded": ZERO_DIGEST}, "do not go with the digest"),
        ({"excluded": (*EXCLUDED, "2.*")}, "are aggregated and excluded"),
    ],
)
def test_terms_that_contradict_themselves_about_excluded_arrays_are_refused(change, message):
    terms = normalising_terms()
    with pytest.raises(RecordError, match=message):
        TaskTerms.from_json(
            {
                **terms.to_json(),
                **{k: v if isinstance(v, str) else list(v) for k, v in change.items()},
            }
        )
