"""A node is killed by the kernel in the middle of an order, and handles it again."""

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import node_victim
import numpy as np
import pytest
from federation import Node, federation
from flwr.app import MessageType
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from lies import changed
from moments import Moment

from twopm_flower.federated import wire
from twopm_flower.federated.exchange import (
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    PrepareOrder,
    TrainOrder,
    TrainReply,
)
from twopm_flower.federated.home import NodeHome
from twopm_flower.records.manifest import Exclusion

Exchange = tuple[str, int]
_NUMBERS = itertools.count()


@dataclass
class Played:
    """What became of one order: whether the process was killed, and what left it."""

    killed: bool
    reply: TrainReply | EvaluateReply | None
    refusal: str | None
    steps: int


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that are forked from one that has imported everything and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([node_victim.__name__])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ensure_running()
        yield context


def exchange_of(order: wire.Order) -> Exchange:
    match order:
        case PrepareOrder():
            return ("prepare", 0)
        case TrainOrder(round=round_):
            return ("train", round_)
        case EvaluateOrder(manifest=manifest):
            return ("evaluate", manifest.round)
        case CloseOrder():
            return ("close", 0)


@pytest.fixture(scope="module")
def moments(stage, tmp_path_factory) -> dict[str, dict[Exchange, Moment]]:
    """Node 0 before every exchange of an honest run, by trust mode."""
    kept: dict[str, dict[Exchange, Moment]] = {}
    for mode in ("shared-key", "one-time-key"):
        folder = tmp_path_factory.mktemp(mode)
        kept[mode] = {}
        made = federation(stage, folder / "federation", trust_mode=mode)

        def keep(deliver, message, index, made=made, mode=mode, folder=folder):
            if index == 0:
                order = wire.parse_order(message.content)
                key = exchange_of(order)
                home = folder / "-".join(map(str, key))
                shutil.copytree(made.nodes[0].home.path, home)
                kept[mode][key] = Moment(Node(0, NodeHome(home), made.task_id), order)
            return deliver(message)

        made.make_grid().messages.append(keep)
        made.run()
    return kept


class Theatre:
    """Plays orders to one node's home, each in a process of its own."""

    def __init__(self, processes, moment: Moment, folder: Path) -> None:
        self._processes = processes
        self.moment = moment.copy(folder)
        self._folder = folder

    @property
    def node(self) -> Node:
        return Node(self.moment.node.index, self.moment.node.home, self.moment.node.task_id)

    def play(self, *, die_at: int = 0, order: wire.Order | None = None) -> Played:
        order = order or self.moment.order
        number = next(_NUMBERS)
        shown, reply = self._folder / f"{number}.order", self._folder / f"{number}.reply"
        content = wire.order_content(order, arrays_key="arrays", config_key="config")
        shown.write_bytes(recorddict_to_proto(content).SerializeToString())
        train = isinstance(order, TrainOrder)
        process = self._processes.Process(
            target=node_victim.play,
            args=(
                self.node.home.path,
                self.node.index,
                shown,
                MessageType.TRAIN if train else MessageType.EVALUATE,
                reply,
                die_at,
            ),
        )
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        return Played(
            killed=process.exitcode != 0,
            reply=_reply(reply, order) if reply.exists() else None,
            refusal=_text(reply.with_suffix(".refused")),
            steps=int(_text(reply.with_suffix(".steps")) or 0),
        )


def _text(file: Path) -> str | None:
    return file.read_text() if file.exists() else None


def _reply(file: Path, order: wire.Order):
    content = recorddict_from_proto(RecordDictProto.FromString(file.read_bytes()))
    match order:
        case PrepareOrder():
            return wire.parse_prepare_reply(content)
        case TrainOrder():
            return wire.parse_train_reply(content)
        case _:
            return wire.parse_evaluate_reply(content)


def few(steps: int) -> list[int]:
    """Return some steps from the first to the last, spread out."""
    return sorted({1, steps // 3, steps // 2, 2 * steps // 3, steps - 1})


EXCHANGES = [
    ("shared-key", ("train", 1)),
    ("shared-key", ("evaluate", 1)),
    ("shared-key", ("train", 2)),
    ("shared-key", ("close", 0)),
    ("one-time-key", ("prepare", 0)),
    ("one-time-key", ("train", 1)),
    ("one-time-key", ("evaluate", 1)),
    ("one-time-key", ("train", 2)),
    ("one-time-key", ("evaluate", 2)),
    ("one-time-key", ("close", 0)),
]
QUICK = [("shared-key", ("train", 2)), ("one-time-key", ("evaluate", 1))]


@dataclass
class Stages:
    """Makes theatres for moments of the recorded runs."""

    processes: Any
    moments: dict[str, dict[Exchange, Moment]]
    folder: Path

    def open(self, mode: str, exchange: Exchange) -> Theatre:
        folder = self.folder / str(next(_NUMBERS))
        folder.mkdir()
        return Theatre(self.processes, self.moments[mode][exchange], folder)


@pytest.fixture
def stages(processes, moments, tmp_path) -> Stages:
    return Stages(processes, moments, tmp_path)


@pytest.mark.parametrize(("mode", "exchange"), QUICK)
def test_a_node_that_was_killed_goes_on_and_says_nothing_else(stages, mode, exchange):
    goes_on_after_kills(stages, mode, exchange, few)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "exchange"), EXCHANGES)
def test_a_node_that_was_killed_at_any_step_goes_on_and_says_nothing_else(stages, mode, exchange):
    goes_on_after_kills(stages, mode, exchange, lambda steps: range(1, steps + 1))


def goes_on_after_kills(
    stages: Stages, mode: str, exchange: Exchange, chosen: Callable[[int], Iterable[int]]
) -> None:
    honest = stages.open(mode, exchange)
    undisturbed = honest.play()
    assert undisturbed.refusal is None
    for step in chosen(undisturbed.steps):
        theatre = stages.open(mode, exchange)
        plays = [theatre.play(die_at=step), theatre.play(), theatre.play()]
        assert [played.killed for played in plays] == [True, False, False], f"step {step}"
        assert [played.refusal for played in plays] == [None] * 3, f"step {step}"
        assert theatre.node.progress.halted is None
        said = [played.reply for played in plays if played.reply is not None]
        assert len(said) == 2 + (step == undisturbed.steps)
        assert_the_same(said)
        assert parts(said[-1]) == parts(undisturbed.reply), f"step {step}"
        assert_like(theatre.node, honest.node)


def assert_the_same(said: Sequence[Any]) -> None:
    """Whatever left the node says one thing, in the same bytes."""
    for one, other in itertools.pairwise(said):
        match one:
            case TrainReply():
                assert (one.update, one.frame, one.shares) == (
                    other.update,
                    other.frame,
                    other.shares,
                )
                assert one.reports == other.reports
            case EvaluateReply():
                # An evaluation is sent once only: it may be lost with the node, never doubled.
                assert replace(one, evaluation=None) == replace(other, evaluation=None)
            case _:
                assert one == other
    evaluations = [reply.evaluation for reply in said if isinstance(reply, EvaluateReply)]
    assert len([e for e in evaluations if e is not None]) <= 1


def parts(reply: Any) -> dict[str, int | bool]:
    """Return what a reply consists of; an evaluation is the one thing that a kill may cost."""
    content = {field.name: getattr(reply, field.name) for field in fields(reply)}
    content.pop("evaluation", None)
    return {n: len(v) if isinstance(v, tuple) else v is not None for n, v in content.items()}


def assert_like(node: Node, honest: Node) -> None:
    """A node that was killed ends where one that was not does."""
    assert node.model_rounds() == honest.model_rounds()
    for round_ in node.model_rounds():
        for name, array in honest.model(round_).items():
            np.testing.assert_array_equal(node.model(round_)[name], array)
    mine, other = node.progress, honest.progress
    assert mine.changed(update=None) == other.changed(update=None)
    assert (mine.update is None) == (other.update is None)


def another_manifest(order: EvaluateOrder, node: Node) -> EvaluateOrder:
    """Return an order for the sum without one of the others, consistent in itself."""
    manifest = order.manifest
    out = next(s.node for s in reversed(manifest.survivors) if s.node != node.address)
    survivors = tuple(s for s in manifest.survivors if s.node != out)
    smaller = changed(
        manifest,
        survivors=survivors,
        exclusions=(Exclusion(node=out, reason="late", detail=""),),
        samples=node.folder.roster.samples_of([s.node for s in survivors]),
        aggregate_digest="0x" + "22" * 32,
    )
    return replace(
        order, manifest=smaller, updates=tuple(u for u in order.updates if u.node != out)
    )


@pytest.mark.parametrize("chosen", [few, pytest.param(None, marks=pytest.mark.slow)])
def test_a_kill_is_no_way_to_fingerprints_for_two_manifests(stages, chosen):
    # Without a chain that tells the manifests apart: only the node's own memory does.
    honest = stages.open("shared-key", ("evaluate", 1))
    honest.node.lose_the_chain()
    steps = honest.play().steps
    for step in (chosen or (lambda count: range(1, count + 1)))(steps):
        theatre = stages.open("shared-key", ("evaluate", 1))
        theatre.node.lose_the_chain()
        other = another_manifest(theatre.moment.order, theatre.node)
        plays = [theatre.play(die_at=step), theatre.play(order=other), theatre.play()]
        signed = [p.reply.fingerprint.statement.manifest_digest for p in plays if p.reply]
        assert len(set(signed)) <= 1, f"step {step}"
        assert theatre.node.progress.halted is not None


def test_a_server_that_goes_back_to_an_earlier_attempt_gets_no_second_update(stages):
    theatre = stages.open("shared-key", ("train", 1))
    first = theatre.moment.order
    second = replace(first, attempt=2)
    plays = [theatre.play(order=order) for order in (first, second, first)]
    signed = {
        (statement.round, statement.attempt, statement.update_digest)
        for played in plays
        if played.reply is not None
        for statement in [played.reply.update.statement]
    }
    assert len(signed) == 2


@pytest.mark.slow
@pytest.mark.parametrize("exchange", [("prepare", 0), ("train", 1), ("evaluate", 1), ("close", 0)])
def test_no_secret_of_a_killed_order_outlives_the_next_one(stages, exchange):
    steps = stages.open("one-time-key", exchange).play().steps
    for step in range(1, steps + 1):
        theatre = stages.open("one-time-key", exchange)
        theatre.play(die_at=step)
        theatre.play()
        names = [file.name for file in theatre.node.folder.path.iterdir()]
        assert [name for name in names if name.startswith(".")] == [".lock"], f"step {step}"
        if exchange == ("close", 0):
            used = ("reader-", "share-", "opening-")
            assert [name for name in names if name.startswith(used)] == [], f"step {step}"
