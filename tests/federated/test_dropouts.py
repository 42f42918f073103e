"""Nodes that are silent, vanish, come back, or are killed between two writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from twopm_flower.errors import QuorumError
from twopm_flower.federated import home as home_module
from twopm_flower.federated import wire
from twopm_flower.federated.exchange import CloseOrder, EvaluateOrder, TrainOrder
from twopm_flower.federated.home import TaskFolder
from twopm_flower.verify import verify_bundle

LOST = 3


def where(message):
    """Return the exchange of a message, such as ("train", 2, 1)."""
    match wire.parse_order(message.content):
        case TrainOrder() as order:
            return ("train", order.round, order.attempt)
        case EvaluateOrder(manifest=manifest):
            return ("evaluate", manifest.round, manifest.attempt)
        case CloseOrder():
            return ("close", 0, 0)


def silence(federation, gone, *, delivered=False):
    """Let one node not answer where `gone` says so, with or without getting the message."""

    def cut(deliver, message, index):
        if index != LOST or not gone(*where(message)):
            return deliver(message)
        if delivered:
            deliver(message)
        return None

    grid = federation.grid or federation.make_grid()
    grid.messages.append(cut)
    return grid


def reasons(federation):
    return [
        {e.node: e.reason for e in entry.manifest.exclusions}
        for entry in federation.bundle().rounds
    ]


def assert_verified(federation):
    report = verify_bundle(federation.bundle(), chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure


def assert_all_hold_the_final_model(federation):
    last = federation.terms.rounds
    for node in federation.nodes:
        assert node.progress.halted is None
        assert node.progress.opened_round == last
        for name, array in federation.nodes[0].model(last).items():
            np.testing.assert_array_equal(node.model(last)[name], array)


def test_a_node_that_is_late_is_listed_and_may_come_back(federate):
    federation = federate(rounds=4)
    silence(federation, lambda kind, r, _: kind == "train" and r in (2, 3), delivered=True)
    federation.run()
    late = {federation.nodes[LOST].address: "late"}
    assert reasons(federation) == [{}, late, late, {}]
    assert_all_hold_the_final_model(federation)
    assert_verified(federation)


def test_a_node_that_is_late_three_times_in_a_row_stops_the_run(federate):
    federation = federate(rounds=5)
    silence(federation, lambda kind, r, _: kind == "train" and r >= 2, delivered=True)
    with pytest.raises(QuorumError, match="was late 3 times in a row") as caught:
        federation.run()
    assert federation.nodes[LOST].address in str(caught.value)
    assert "train_timeout_s" in str(caught.value)
    assert len(federation.bundle().rounds) == 3


def test_a_survivor_that_vanishes_before_its_fingerprints_leads_to_a_second_attempt(federate):
    federation = federate(rounds=3)
    silence(federation, lambda kind, r, a: (kind, r, a) == ("evaluate", 2, 1))
    federation.run()

    lost = federation.nodes[LOST].address
    rounds = federation.bundle().rounds
    assert [entry.manifest.attempt for entry in rounds] == [1, 2, 1]
    assert lost not in rounds[1].manifest.nodes
    (superseded,) = rounds[1].superseded
    assert lost in superseded.manifest.nodes
    assert superseded.record is not None
    assert lost in rounds[2].manifest.nodes
    on_chain = federation.stage.connector.round_records(federation.task_id)
    assert [(r.round, r.attempt) for r in on_chain] == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert on_chain[1].manifest_digest == superseded.manifest.digest
    assert_all_hold_the_final_model(federation)
    assert_verified(federation)


@pytest.mark.slow
def test_when_survivors_keep_vanishing_the_run_ends(federate):
    federation = federate(rounds=2)
    silence(federation, lambda kind, r, a: kind == "evaluate")
    grid = federation.grid

    def everybody(deliver, message, index):
        return None if where(message)[0] == "evaluate" else deliver(message)

    grid.messages.append(everybody)
    with pytest.raises(QuorumError):
        federation.run(max_attempts=2)
    for node in federation.nodes:
        assert node.progress.opened_round == 0


def test_a_node_that_missed_openings_gets_them_again_and_catches_up(federate):
    federation = federate(rounds=6)
    grid = silence(federation, lambda kind, r, _: kind != "close" and r in (2, 3))
    federation.run()
    lost = federation.nodes[LOST].address
    listed = [entry.get(lost) for entry in reasons(federation)]
    assert listed == [None, "late", "late", "error", None, None]
    behind = [r for i, r in grid.replied if i == LOST and r is not None and r.has_error()]
    assert all("twopm-behind:0" in reply.error.reason for reply in behind)
    assert behind
    assert_all_hold_the_final_model(federation)
    assert_verified(federation)


@pytest.mark.slow
def test_a_node_that_was_never_there_before_catches_up_from_the_initial_model(federate):
    federation = federate(rounds=5)
    silence(federation, lambda kind, r, _: kind != "close" and r <= 2)
    federation.run(late_limit=1000)
    lost = federation.nodes[LOST].address
    listed = [entry.get(lost) for entry in reasons(federation)]
    assert listed[:3] == ["unavailable", "unavailable", "error"]
    assert listed[3:] == [None, None]
    assert_all_hold_the_final_model(federation)


def test_a_node_missing_at_the_end_does_not_keep_the_model_from_being_final(federate):
    federation = federate(rounds=2)
    silence(federation, lambda kind, *_: kind == "close")
    result = federation.run()
    assert federation.stage.connector.task(federation.task_id).state == "finalised"
    assert len(federation.bundle().rounds[-1].models) == 3
    assert 2 not in result.evaluate_metrics_clientapp
    assert_verified(federation)


def test_without_a_quorum_for_the_final_model_nothing_is_finalised(federate):
    federation = federate(rounds=1)
    grid = silence(federation, lambda kind, *_: kind == "close")

    def another(deliver, message, index):
        return None if index == 0 and where(message)[0] == "close" else deliver(message)

    grid.messages.append(another)
    with pytest.raises(QuorumError, match="2 nodes signed the same model, 3 are needed"):
        federation.run()
    assert federation.stage.connector.task(federation.task_id).state == "running"


@pytest.mark.slow
def test_an_error_from_flower_counts_like_silence(federate):
    federation = federate(rounds=2)

    def broken(deliver, message, index):
        if index == LOST and where(message)[:2] == ("evaluate", 1):
            error = Error(ErrorCode.CLIENT_APP_CRASHED, "killed")
            return Message(error, reply_to=message)
        return deliver(message)

    federation.make_grid().messages.append(broken)
    federation.run()
    assert [entry.manifest.attempt for entry in federation.bundle().rounds] == [2, 1]


# --- killed between two writes ---------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing of ours may catch it."""


@contextmanager
def killed_at(folder: Path, number: int, *, before: bool) -> Iterator[list[str]]:
    """Kill the node around its n-th durable write; names what it wrote."""
    written: list[str] = []
    write, save_update = home_module.write_atomically, TaskFolder.save_update

    def reached(name: str) -> bool:
        written.append(name)
        return len(written) == number

    def writing(path, data, *, mode=0o644):
        mine = folder in path.parents and reached(path.name)
        if mine and before:
            raise Killed
        write(path, data, mode=mode)
        if mine:
            raise Killed

    def saving(self, round_, attempt, residues):
        mine = folder in self.path.parents and reached("update")
        if mine and before:
            # Half a file is what a kill in the middle of it leaves.
            (self.path / f"update-{round_}-{attempt}.npy").write_bytes(b"\x93NUMPY")
            raise Killed
        save_update(self, round_, attempt, residues)
        if mine:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home_module, "write_atomically", writing)
        patch.setattr(TaskFolder, "save_update", saving)
        yield written


WRITES = 16
"""A node's durable writes in two rounds and the closing."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    "number",
    [n if n in (4, 8) else pytest.param(n, marks=pytest.mark.slow) for n in range(1, WRITES + 1)],
)
def test_a_node_killed_around_any_write_goes_on_afterwards(federate, number, before):
    federation = federate(rounds=2)
    node = federation.nodes[LOST]
    grid = federation.make_grid()

    def survive(deliver, message, index):
        try:
            return deliver(message)
        except Killed:
            return None

    grid.messages.append(survive)
    with killed_at(node.home.path, number, before=before) as written:
        federation.run()
    assert len(written) >= number
    assert node.progress.halted is None
    models = {n.progress.model_digest for n in federation.nodes[:LOST]}
    assert len(models) == 1
    opened = node.progress.opened_round
    if opened == 2:
        assert node.progress.model_digest in models
    # Killed in the last exchange it may be one opening short, and nothing worse.
    assert opened >= 1
    assert node.folder.load_model(opened)
    assert_verified(federation)
