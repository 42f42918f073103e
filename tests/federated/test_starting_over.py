"""A task runs once: starting it again is refused, and stops no node for good."""

import shutil

import pytest
from moments import Moment

from twopm_flower.errors import ConfigError, QuorumError
from twopm_flower.federated.server_run import ServerRun
from twopm_flower.node.forgetting import forget_task


def progress_of(federation):
    return [node.progress for node in federation.nodes]


def test_a_task_that_ran_is_refused_before_any_node_is_asked(federate):
    federation = federate(rounds=1)
    federation.run()
    before, asked = progress_of(federation), len(federation.grid.sent)
    with pytest.raises(ConfigError, match="ran before: 1 of its 1 rounds") as caught:
        federation.run()
    assert "--initial-model" in caught.value.hint
    assert len(federation.grid.sent) == asked
    assert progress_of(federation) == before


def test_nodes_refuse_a_server_that_forgot_its_run_and_do_not_stop(federate):
    federation = federate(rounds=1)
    federation.run()
    shutil.rmtree(federation.coordinator / "runs")
    before = progress_of(federation)
    with pytest.raises(QuorumError, match=r"opened round 1 of it already.*makes a new one"):
        federation.run()
    assert progress_of(federation) == before


def test_a_node_that_saw_a_start_over_goes_on_with_the_run(recorded, tmp_path):
    moment, first = recorded.at("train", 2), recorded.at("train", 1).order
    opened, node = moment.show(moment.order, tmp_path / "opens")
    assert not opened.has_error()
    refused, node = Moment(node, moment.order).show(first, tmp_path / "refuses")
    assert "StartedOver" in refused.error.reason
    again, _ = Moment(node, moment.order).show(moment.order, tmp_path / "goes on")
    assert not again.has_error()


def test_a_second_attempt_of_the_first_round_is_not_trained_over_again(federate, monkeypatch):
    federation = federate(rounds=1)

    def spoil_then_go_down(run, replies):
        if run._current.aggregate.manifest.attempt == 1:
            return ("nobody",)
        raise QuorumError("the server goes down")

    with monkeypatch.context() as patch:
        patch.setattr(ServerRun, "accept_evaluate", spoil_then_go_down)
        with pytest.raises(QuorumError, match="goes down"):
            federation.run()
    with pytest.raises(QuorumError, match="sent a second attempt of round 1 of it already"):
        federation.run()
    assert [node.progress.halted for node in federation.nodes] == [None] * 4


def test_a_node_that_forgot_a_task_does_not_speak_of_resuming_it(recorded, tmp_path):
    moment = recorded.at("train", 2).copy(tmp_path)
    forget_task(moment.node.home.path, moment.node.task_id)
    reply, _ = moment.show(moment.order, tmp_path / "asked")
    assert "forgotten by its operator" in reply.error.reason
    assert "join a new task" in reply.error.reason
    assert "resume" not in reply.error.reason
