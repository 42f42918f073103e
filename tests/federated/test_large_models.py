"""Ten million parameters through the real mod and strategy, and in what pieces they travel.

What Flower 1.41 does, read in its source: gRPC messages may have 2 GiB - 1 bytes
(``GRPC_MAX_MESSAGE_LENGTH``), and a message is pushed and pulled as a tree of objects, one
call each, in which an `Array` is cut into chunks of ``FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE``
(5 MiB by default). So a frame travels in chunks because it is an `Array`; bytes in a
`ConfigRecord` would travel in one piece.
"""

from pathlib import Path

import numpy as np
import pytest
from federation import MAX_NODES, METRICS, RUN_CONFIG, Federation, Stage, provision
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK_BYTES
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from quantised_fedavg import quantised_mean
from tiny_app import SAMPLES, TRAIN_CONFIG, initial_weights, measure

from twopm_flower.federated import EncryptionMod, LocalGrid, wire, wire_fields
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.federated.terms import build_terms

CLIP = 0.5
OVERHEAD_BYTES = 1024
"""For the header of an object; config records hold a few statements beside."""


def model_of(size: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(size)
    rows = size // 1000
    return {"weight": generator.normal(size=(rows, 1000)).astype(np.float32)}


def change_of(index: int, shape: tuple[int, ...]) -> np.ndarray:
    change = np.random.default_rng(50 + index).standard_normal(shape, np.float32)
    change *= np.float32(0.2)
    return change


def large_app() -> ClientApp:
    """An app that changes every weight by a number of its own."""
    app = ClientApp(mods=[EncryptionMod()])

    def reply(message: Message, context: Context, *, train: bool) -> Message:
        index = int(context.node_config["partition-id"])
        content = RecordDict()
        if train:
            weight = message.content["arrays"]["weight"].numpy()
            trained = weight + change_of(index, weight.shape)
            content["arrays"] = ArrayRecord({"weight": Array(trained)})
        content["metrics"] = MetricRecord(measure(initial_weights(), index, held_out=not train))
        return Message(content, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply(message, context, train=True)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply(message, context, train=False)

    return app


class MeasuringGrid(LocalGrid):
    """A local grid that remembers how large the largest piece of each message is."""

    largest = 0
    total = 0

    def deliver(self, message: Message) -> Message | None:
        self._measure(message.content)
        reply = super().deliver(message)
        if reply is not None and reply.has_content():
            self._measure(reply.content)
        return reply

    def _measure(self, content: RecordDict) -> None:
        for data in pieces(content).values():
            self.largest = max(self.largest, len(data))
            self.total += len(data)


def pieces(content: RecordDict) -> dict[str, bytes]:
    """Return what Flower sends of a message, one call each."""
    return {key: part.deflate() for key, part in get_all_nested_objects(content).items()}


def large_federation(stage: Stage, folder: Path, size: int, *, nodes: int = 3) -> Federation:
    initial = model_of(size)
    terms = build_terms(
        initial,
        title="large",
        rounds=1,
        trust_mode="shared-key",
        clip=CLIP,
        min_contributors=3,
        quorum=3,
        max_samples=max(SAMPLES),
        max_nodes=MAX_NODES,
        train_metrics=METRICS,
        evaluation_metrics=METRICS,
        train_config=TRAIN_CONFIG,
        evaluate_config={},
        run_config=RUN_CONFIG,
        app_bundle=app_bundle_digest(None),
        dataset={"app": "large"},
    )
    return provision(stage, folder, terms, initial, SAMPLES[:nodes])


def run_large(federation: Federation) -> MeasuringGrid:
    configs = [
        {
            "partition-id": node.index,
            "num-partitions": len(federation.nodes),
            "twopm-home": str(node.home.path),
        }
        for node in federation.nodes
    ]
    grid = MeasuringGrid(large_app(), configs, dict(federation.terms.run_config))
    federation.run(grid=grid)
    return grid


def check_exact(federation: Federation) -> None:
    base = federation.initial
    nodes = range(len(federation.nodes))
    trained = {i: {"weight": base["weight"] + change_of(i, base["weight"].shape)} for i in nodes}
    expected = quantised_mean(base, trained, clip=CLIP, max_nodes=MAX_NODES)
    for node in federation.nodes:
        assert node.model(1)["weight"].tobytes() == expected["weight"].tobytes()


def high_water(*, reset: bool = False) -> float:
    """Return the most memory that this process used since the last reset, in MiB."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_a_frame_travels_in_chunks_and_arrives_whole():
    frame = np.random.default_rng(0).bytes(2 * CHUNK_BYTES + 1)
    content = RecordDict(
        {"arrays": ArrayRecord({"update": wire_fields.blob(frame, wire.UPDATE_STYPE)})}
    )
    sent = pieces(content)
    assert max(map(len, sent.values())) < CHUNK_BYTES + OVERHEAD_BYTES
    assert sum(len(data) > CHUNK_BYTES for data in sent.values()) == 2
    arrived = inflate_object_from_contents(content.object_id, dict(sent))
    assert isinstance(arrived, RecordDict)
    assert arrived["arrays"]["update"].data == frame


def test_two_hundred_thousand_parameters_open_to_the_exact_integers(stage, tmp_path):
    federation = large_federation(stage, tmp_path, 200_000)
    run_large(federation)
    check_exact(federation)


@pytest.mark.slow
def test_ten_million_parameters_in_three_nodes_are_exact_and_travel_in_chunks(
    stage, tmp_path, record_property
):
    federation = large_federation(stage, tmp_path, 10_000_000)
    before = high_water(reset=True)
    grid = run_large(federation)
    used = high_water() - before
    record_property("extra_mib", round(used))
    print(f"10M parameters, 3 nodes and the server in one process: {used:.0f} MiB more")
    assert grid.total > 3 * 35_000_000 + 3 * 70_000_000
    assert grid.largest < CHUNK_BYTES + OVERHEAD_BYTES
    assert used < 1500
    check_exact(federation)
