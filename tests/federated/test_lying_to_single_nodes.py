"""A malicious server shows nodes different things: those who are lied to go no further."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from lies import (
    assert_stopped,
    assert_unharmed,
    on_close,
    on_train,
    run_into_refusal,
)
from tiny_app import tiny_app

from twopm_flower.federated import LocalGrid, wire
from twopm_flower.federated.exchange import EvaluateOrder


def one_is_lied_to(federation, victim, because, *, opened=0):
    """Run to the end with the other three and check who noticed."""
    federation.run()
    for node in federation.nodes:
        if node.index == victim:
            assert_stopped(node, because, opened=opened)
        else:
            assert_unharmed(node, opened=federation.terms.rounds)


def other_model(initial):
    return {**initial, "bias": initial["bias"] + np.float32(1)}


def test_another_initial_model_is_refused(federate):
    federation = federate()
    federation.make_grid().orders.append(on_train(1, victim=1, initial=other_model))
    one_is_lied_to(federation, 1, "the initial model has digest")


def refuses(recorded, folder, kind, because, **changes):
    """Show a node a changed order of round 1; it stops."""
    moment = recorded.at(kind, 1)
    reply, node = moment.show(replace(moment.order, **changes), folder)
    assert reply.has_error()
    assert_stopped(node, because)
    return node


def test_an_initial_model_of_another_shape_is_refused(recorded, tmp_path):
    other = {"weight": np.zeros((2, 2), np.float32)}
    node = refuses(recorded, tmp_path, "train", "the model's arrays are", initial=other)
    assert node.model_rounds() == set()


def test_no_initial_model_is_no_way_round_the_check(federate):
    federation = federate(rounds=1)
    grid = federation.make_grid()
    grid.orders += [on_train(1, victim=1, initial={}), on_close(victim=1, initial={})]
    federation.run()
    victim = federation.nodes[1]
    assert victim.progress.model_digest is None
    assert victim.progress.update is None
    assert victim.model_rounds() == set()
    assert victim.address not in federation.bundle().rounds[0].manifest.nodes


def test_another_base_model_in_a_later_round_is_refused_by_all(federate, monkeypatch):
    # The base of a round follows from its opening, so a server that wants another base has
    # to show another opening; with one aggregate for all, only the wrong one is refused.
    federation = federate()

    def stale(openings):
        return ()

    federation.make_grid().orders.append(on_train(2, victim=1, openings=stale))
    federation.run()
    victim = federation.nodes[1]
    assert victim.progress.halted is None
    assert "1/1" in victim.progress.fingerprinted
    survivors = federation.bundle().rounds[1].manifest.nodes
    assert victim.address not in survivors


@pytest.mark.parametrize(
    "config",
    [
        {"lr": 99.0},
        {"lr": 0.25, "steps": 3, "server-round": 1, "extra": 1},
        {"lr": 0.25, "steps": 4, "server-round": 1},
        {"lr": 0.25, "steps": 3, "server-round": 2},
    ],
    ids=["other", "more", "changed", "wrong round"],
)
def test_another_training_configuration_is_refused(recorded, tmp_path, config):
    refuses(recorded, tmp_path, "train", "the server sent the configuration", config=config)


def test_another_evaluation_configuration_is_refused(recorded, tmp_path):
    other = {"threshold": 0.1, "server-round": 1}
    refuses(recorded, tmp_path, "evaluate", "the server sent the configuration", config=other)


def test_another_run_configuration_is_refused(federate):
    federation = federate()
    grid = federation.make_grid()
    context = next(c for c in grid.contexts.values() if c.node_config["partition-id"] == 3)
    context.run_config = {**context.run_config, "seed": 8}
    one_is_lied_to(federation, 3, "the run configuration is")


def test_another_app_bundle_is_refused(federate, tmp_path, monkeypatch):
    federation = federate()
    app = tmp_path / "apps" / "twopm.evil.1.0"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text('[tool.flwr.app]\npublisher = "somebody"\n')

    def unpacked_elsewhere(deliver, message, index):
        if index != 1:
            return deliver(message)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "path", [str(app), *sys.path])
            return deliver(message)

    federation.make_grid().messages.append(unpacked_elsewhere)
    one_is_lied_to(federation, 1, "somebody submitted another app")


def show_two_manifests(federation, victim):
    """Show one node another manifest first and the real one of the same attempt after it."""

    def show_both(deliver, message, index):
        order = wire.parse_order(message.content)
        if index == victim and isinstance(order, EvaluateOrder):
            forged = order.manifest.model_copy(update={"aggregate_digest": "0x" + "11" * 32})
            real = message.content
            message.content = wire.order_content(
                replace(order, manifest=forged), arrays_key="arrays", config_key="config"
            )
            deliver(message)
            message.content = real
        return deliver(message)

    federation.make_grid().messages.append(show_both)


def test_two_manifests_for_one_attempt_are_refused_without_any_chain(federate):
    federation = federate()
    show_two_manifests(federation, victim=1)
    federation.nodes[1].lose_the_chain()
    one_is_lied_to(federation, 1, "the server sent two manifests for round 1, attempt 1")


def test_a_node_that_stopped_stays_stopped_and_says_why(federate):
    federation = federate()
    grid = federation.make_grid()
    grid.orders.append(on_train(1, victim=2, config={"lr": 99.0}))
    federation.run()
    answers = [reply for index, reply in grid.replied if index == 2]
    assert len(answers) > 2
    assert all(reply.has_error() for reply in answers)
    assert "the server sent the configuration" in answers[-1].error.reason
    assert "twopm node resume" in answers[-1].error.reason


def test_when_everybody_is_lied_to_the_run_ends(federate):
    federation = federate()
    federation.make_grid().orders.append(on_train(1, config={"lr": 99.0}))
    error = run_into_refusal(federation)
    assert "0 valid updates, 3 are needed" in str(error)
    for node in federation.nodes:
        assert_stopped(node, "the server sent the configuration")


@pytest.mark.parametrize("kind", ["enrol", "join", "deal", "accept"])
def test_a_deployed_node_is_not_enrolled_by_messages(recorded, tmp_path, kind):
    home = tmp_path / "home"
    shutil.copytree(recorded.at("train", 1).node.home.path, home)
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    grid = LocalGrid(tiny_app(), [{"partition-id": 0, "twopm-home": str(home)}], {})
    content = RecordDict()
    content[wire.TWOPM] = ConfigRecord({"kind": kind, "task": recorded.federation.task_id})
    (reply,) = grid.send_and_receive(
        [Message(content, dst_node_id=1, message_type=MessageType.TRAIN)]
    )
    assert "a deployed node joins through its operator only" in reply.error.reason
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("task", ["../../etc", "0x" + "AB" * 32, "", "0x" + "0" * 63])
def test_a_task_id_that_is_none_never_names_a_folder(recorded, tmp_path, task):
    moment = recorded.at("train", 1)
    reply, _ = moment.show(replace(moment.order, task_id=task), tmp_path)
    assert "is not a task id" in reply.error.reason


def test_a_task_that_a_node_has_not_joined_is_refused(recorded, tmp_path, caplog):
    moment = recorded.at("train", 1)
    with caplog.at_level("WARNING"):
        reply, _ = moment.show(replace(moment.order, task_id="0x" + "ab" * 32), tmp_path)
    assert "ConfigError" in reply.error.reason
    (said,) = [r.getMessage() for r in caplog.records if "has not joined" in r.getMessage()]
    assert "twopm task join" in said
