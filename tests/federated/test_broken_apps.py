"""Apps that fail or say too much: nothing undeclared leaves a node, and the others go on."""

import logging

import numpy as np
import pytest
from bad_node import BAD, CANARY, only_exclusion, run_without
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
)
from tiny_app import tiny_app

from twopm_flower.errors import QuorumError
from twopm_flower.verify import verify_bundle


def failing(message, context, content):
    raise ValueError(f"row 7 of patient {CANARY} is odd")


def with_weights(value):
    def change(message, context, content):
        weights = {n: np.full_like(a.numpy(), value) for n, a in content["arrays"].items()}
        content["arrays"] = ArrayRecord({n: Array(a) for n, a in weights.items()})
        return content

    return change


def in_float64(message, context, content):
    content["arrays"] = ArrayRecord(
        {n: Array(a.numpy().astype(np.float64)) for n, a in content["arrays"].items()}
    )
    return content


def of_another_shape(message, context, content):
    content["arrays"] = ArrayRecord({"weight": Array(np.zeros((1, 7), np.float32))})
    return content


def without_loss(message, context, content):
    del content["metrics"]["loss"]
    return content


def on_other_rows(message, context, content):
    content["metrics"]["num-examples"] += 1
    return content


def two_array_records(message, context, content):
    content["more"] = ArrayRecord({})
    return content


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (failing, "the app failed (ValueError)"),
        (with_weights(np.nan), "HeadroomError: see the node's log"),
        (with_weights(np.inf), "HeadroomError: see the node's log"),
        (in_float64, "is float64, not float32"),
        (of_another_shape, "the model's arrays are"),
        (without_loss, "the app reported no ['loss']"),
        (on_other_rows, "ConfigError: see the node's log"),
        (two_array_records, "carries 2 ArrayRecords, not one"),
    ],
    ids=["raises", "NaN", "infinity", "float64", "shape", "metric", "samples", "records"],
)
def test_a_broken_app_sends_nothing_and_says_why(recorded, tmp_path, behaviour, said):
    moment = recorded.at("train", 1)
    reply, node = moment.show(moment.order, tmp_path, tiny_app({0: behaviour}))
    assert reply.has_error()
    assert said in reply.error.reason
    assert node.progress.update is None
    assert node.progress.halted is None


def test_a_node_with_a_broken_app_is_listed_with_an_error(federate):
    federation = federate(rounds=1)
    federation.make_grid(tiny_app({BAD: failing}))
    run_without(federation)
    listed = only_exclusion(federation)
    assert listed.reason == "error"
    assert "the app failed (ValueError)" in listed.detail


def test_what_an_app_raises_stays_on_the_node(federate, caplog):
    federation = federate(rounds=1)
    grid = federation.make_grid(tiny_app({BAD: failing}, {0: failing}))
    with caplog.at_level(logging.INFO):
        federation.run()
    for _, reply in grid.replied:
        assert CANARY not in repr(reply)
    assert CANARY.encode() not in federation.store.bundle_path.read_bytes()
    # The node's own operator does get to see it.
    assert any(CANARY in str(record.exc_info) for record in caplog.records if record.exc_info)


def test_a_failing_evaluation_costs_the_metrics_and_not_the_round(federate):
    federation = federate(rounds=2)

    def first_time(message, context, content):
        if message.content["config"]["server-round"] == 1:
            raise ValueError(CANARY)
        return content

    federation.make_grid(tiny_app(evaluations={BAD: first_time}))
    result = federation.run()
    assert [entry.manifest.attempt for entry in federation.bundle().rounds] == [1, 1]
    # The masks of the others do not cancel without the missing one: nothing opens.
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2]
    report = verify_bundle(federation.bundle(), chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure


def test_a_broken_app_does_not_stop_its_node_for_good(federate):
    federation = federate(rounds=2)

    def once(message, context, content):
        if message.content["config"]["server-round"] == 1:
            raise RuntimeError("a bad day")
        return content

    federation.make_grid(tiny_app({BAD: once}))
    federation.run()
    assert only_exclusion(federation).reason == "error"
    assert federation.bundle().rounds[1].manifest.exclusions == ()
    assert federation.nodes[BAD].progress.halted is None


def test_nothing_but_the_declared_leaves_a_node(federate):
    federation = federate(rounds=1)

    def chatty(message, context, content):
        content["metrics"]["income-of-row-3"] = 31_337.25
        content["metrics"]["curve"] = [0.1, 0.2]
        content["notes"] = ConfigRecord({"secret": CANARY})
        content["debug"] = ConfigRecord({"more": CANARY})
        return content

    grid = federation.make_grid(tiny_app({0: chatty}, {0: chatty}))
    federation.run()
    assert federation.bundle().rounds[0].manifest.exclusions == ()
    for index, reply in grid.replied:
        assert not reply.has_error()
        assert set(reply.content) <= {"arrays", "metrics", "twopm"}
        assert dict(reply.content["metrics"]) == {"num-examples": 1}
        allowed = {
            "reports",
            "update",
            "fingerprint",
            "evaluation",
            "key",
            "bad_dealers",
            "readers",
        }
        assert set(reply.content["twopm"]) <= allowed
        if index == 0:
            text = repr(reply.content)
            assert CANARY not in text
            assert "income" not in text
            assert "31337" not in text
            assert "curve" not in text


def test_below_the_quorum_the_run_ends_and_says_what_each_node_answered(federate):
    federation = federate(rounds=1)
    federation.make_grid(tiny_app({2: failing, 3: failing}))
    with pytest.raises(QuorumError) as caught:
        federation.run()
    text = str(caught.value)
    assert "round 1: 2 valid updates, 3 are needed" in text
    assert text.count("the app failed (ValueError)") == 2
    assert "Look at the nodes' logs" in text
    assert CANARY not in text
    assert federation.stage.connector.round_records(federation.task_id) == ()
    for node in federation.nodes:
        assert node.progress.opened_round == 0
