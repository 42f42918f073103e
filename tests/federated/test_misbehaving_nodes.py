"""Malicious and broken nodes: each is left out with its reason, and the others go on."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from federation import MAX_NODES
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common.constant import ErrorCode
from quantised_fedavg import quantised_run
from tiny_app import tiny_app

from twopm_flower.errors import QuorumError
from twopm_flower.federated import wire
from twopm_flower.federated.aggregator import (
    NodePins,
    RefusedReplyError,
    RoundAggregator,
    Setting,
)
from twopm_flower.federated.exchange import EvaluateOrder, TrainOrder
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.frame import UPDATE_HEADER_BYTES
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.records.statements import sign
from twopm_flower.signer.keystore import LocalSigner
from twopm_flower.verify import verify_bundle

CANARY = "canary-7f3a91"
BAD = 3
"""The node that misbehaves in these tests; three honest ones are left."""


def exclusions(federation, round_=1):
    manifest = federation.bundle().rounds[round_ - 1].manifest
    return {exclusion.node: exclusion for exclusion in manifest.exclusions}


def only_exclusion(federation, round_=1):
    """Return how the bad node is listed, after checking that the others are in the sum."""
    bad = federation.nodes[BAD]
    manifest = federation.bundle().rounds[round_ - 1].manifest
    assert set(manifest.nodes) == {n.address for n in federation.nodes if n is not bad}
    listed = exclusions(federation, round_)
    assert set(listed) == {bad.address}
    return listed[bad.address]


def rewrite_update(federation, change, *, rounds=(1,)):
    """Let the bad node's update reply pass through `change` on its way out."""

    def tamper(deliver, message, index):
        order = wire.parse_order(message.content)
        reply = deliver(message)
        if index == BAD and isinstance(order, TrainOrder) and order.round in rounds:
            assert not reply.has_error(), reply.error.reason
            parsed = wire.parse_train_reply(reply.content)
            reply.content = wire.reply_content(change(parsed))
        return reply

    federation.make_grid().messages.append(tamper)


def body(frame, start, data):
    return frame[:start] + data + frame[start + len(data) :]


def run_without(federation, **settings):
    federation.run(**settings)
    expected = quantised_run(federation.initial, [0, 1, 2], 1, clip=4.0, max_nodes=MAX_NODES)
    for name, array in federation.nodes[0].model(1).items():
        np.testing.assert_array_equal(array, expected[1][name])


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (lambda frame: b"", "malformed", "at least"),
        (lambda frame: bytes(len(frame)), "malformed", "starts with"),
        (lambda frame: frame + b"\0", "malformed", "carries"),
        (lambda frame: frame[:-1], "malformed", "carries"),
        (lambda frame: body(frame, 4, b"\2\0"), "malformed", "version 2"),
        (
            lambda frame: body(frame, len(frame) - 7, MODULUS.to_bytes(7, "little")),
            "malformed",
            "not below the modulus",
        ),
        (lambda frame: body(frame, 8, b"\xee" * 32), "binding", "bound to task"),
        (lambda frame: body(frame, 40, b"\2"), "binding", "bound to round 2"),
        (lambda frame: body(frame, 48, b"\2"), "binding", "bound to attempt 2"),
        (lambda frame: body(frame, 52, b"\xee" * 20), "binding", "bound to node"),
        (lambda frame: body(frame, 72, b"\xee" * 32), "binding", "encrypted under key"),
        (
            lambda frame: body(frame, UPDATE_HEADER_BYTES, b"\xee" * 8),
            "binding",
            "the node signed",
        ),
    ],
    ids=[
        "empty", "zeros", "longer", "shorter", "version", "residue q", "task", "round", "attempt",
        "node", "key", "other seed",
    ],
)  # fmt: skip
def test_a_bad_frame_is_left_out_with_its_reason(recorded, change, reason, detail):
    sent = recorded.updates[BAD]
    listed = left_out(recorded, replace(sent, frame=change(sent.frame)))
    assert listed.reason == reason
    assert detail in listed.detail


def test_one_bad_frame_does_not_change_what_the_others_get(federate):
    federation = federate(rounds=1)
    rewrite_update(federation, lambda reply: replace(reply, frame=reply.frame[:-1]))
    run_without(federation)
    assert only_exclusion(federation).reason == "malformed"


def left_out(recorded, reply):
    """Hand the server three honest updates and a bad one; return how the bad one is listed."""
    federation = recorded.federation
    honest = federation.bundle().rounds[0].manifest
    task = TaskContext(
        task_id=federation.task_id,
        domain=federation.stage.deployment.domain,
        terms=federation.terms,
        roster=federation.roster,
        key_id=honest.key_id,
    )
    setting = Setting(
        round=1,
        attempt=1,
        previous_manifest=honest.previous_manifest,
        base_model=honest.base_model,
        config_digest=honest.config_digest,
    )
    aggregator = RoundAggregator(task, setting, NodePins(), asked=range(4), barred={})
    for index in range(3):
        aggregator.receive(index, recorded.updates[index])
    with pytest.raises(RefusedReplyError) as caught:
        aggregator.receive(BAD, reply)
    aggregator.refuse(BAD, caught.value)
    manifest = aggregator.finish().manifest
    assert len(manifest.survivors) == 3
    (listed,) = manifest.exclusions
    assert listed.node == federation.nodes[BAD].address
    return listed


def resigned(recorded, signer, frame=None, **changes):
    """Return the bad node's update with a changed statement, signed anew."""
    sent = recorded.updates[BAD]
    statement = sent.update.statement.model_copy(update=changes)
    signed = sign(statement, signer, recorded.federation.stage.deployment.domain)
    return replace(sent, update=signed, frame=sent.frame if frame is None else frame)


def test_an_update_signed_by_somebody_else_is_left_out(recorded):
    foreign = recorded.federation.nodes[0].home.signer
    stolen = resigned(recorded, foreign, node=foreign.address).update.signature
    sent = recorded.updates[BAD]
    forged = sent.update.model_copy(update={"signature": stolen})
    listed = left_out(recorded, replace(sent, update=forged))
    assert listed.reason == "signature"
    assert "is signed by" in listed.detail


def test_an_update_signed_for_another_chain_is_left_out(recorded):
    bad = recorded.federation.nodes[BAD].home.signer
    sent = recorded.updates[BAD]
    elsewhere = recorded.federation.stage.deployment.domain.model_copy(update={"chain_id": 1})
    signed = sign(sent.update.statement, bad, elsewhere)
    assert left_out(recorded, replace(sent, update=signed)).reason == "signature"


@pytest.mark.parametrize(
    "field",
    [
        "task_id",
        "terms_digest",
        "roster_digest",
        "app_bundle",
        "config_digest",
        "previous_manifest",
        "base_model",
        "key_id",
        "parameters_id",
        "layout_digest",
        "update_digest",
    ],
)
def test_an_update_bound_to_something_else_is_left_out(recorded, field):
    bad = recorded.federation.nodes[BAD].home.signer
    other = "0x" + "66" * 32
    listed = left_out(recorded, resigned(recorded, bad, **{field: other}))
    assert listed.reason == "binding"
    assert other in listed.detail


@pytest.mark.parametrize("field", ["round", "attempt"])
def test_an_update_signed_for_another_round_or_attempt_is_left_out(recorded, field):
    bad = recorded.federation.nodes[BAD].home.signer
    listed = left_out(recorded, resigned(recorded, bad, **{field: 2}))
    assert listed.reason == "binding"
    assert f"{field} is 2, expected 1" in listed.detail


def test_the_update_of_an_earlier_round_is_left_out(federate):
    federation = federate(rounds=2)
    kept = []

    def replay(reply):
        kept.append(reply)
        return replace(kept[0], reports=reply.reports)

    rewrite_update(federation, replay, rounds=(1, 2))
    federation.run()
    listed = only_exclusion(federation, round_=2)
    assert listed.reason == "binding"
    assert "bound to round 1; expected was 2" in listed.detail


def test_an_outsiders_update_is_left_out_and_does_not_stand_for_anybody(recorded):
    outsider = LocalSigner(bytes([9]) * 32)
    frame = body(recorded.updates[BAD].frame, 52, bytes.fromhex(outsider.address[2:]))
    reply = resigned(recorded, outsider, frame, node=outsider.address)
    listed = left_out(recorded, reply)
    assert listed.reason == "binding"
    assert f"{outsider.address} is not a member" in listed.detail


def test_two_flower_nodes_cannot_be_one_member(federate, tmp_path, caplog):
    federation = federate(rounds=1)
    grid = federation.make_grid()
    copied = tmp_path / "stolen-home"
    shutil.copytree(federation.nodes[0].home.path, copied)
    first = grid.contexts[1]
    twin = {**first.node_config, "twopm-home": str(copied)}
    grid.contexts[9] = replace(first, node_id=9, node_config=twin)
    with caplog.at_level(logging.WARNING):
        federation.run(grid=grid)
    said = [r.getMessage() for r in caplog.records]
    assert any("answered through another Flower node before" in text for text in said)
    manifest = federation.bundle().rounds[0].manifest
    assert len(manifest.nodes) == 4
    assert manifest.exclusions == ()


def test_two_replies_of_one_node_count_once(federate):
    federation = federate(rounds=1)
    grid = federation.make_grid()
    send = grid.send_and_receive

    def twice(messages, *, timeout=None):
        replies = list(send(messages, timeout=timeout))
        return [*replies, replies[0]]

    grid.send_and_receive = twice
    federation.run()
    manifest = federation.bundle().rounds[0].manifest
    assert len(manifest.nodes) == 4
    assert manifest.samples == federation.roster.samples_of(federation.roster.nodes)


def test_a_replayed_public_statement_does_not_take_its_signers_place(federate):
    earlier = federate(rounds=1)
    earlier.run()
    victim = earlier.nodes[0].address
    public = next(u for u in earlier.bundle().rounds[0].updates if u.node == victim)

    federation = federate(rounds=2)
    assert federation.nodes[0].address == victim

    def impersonate(reply):
        frame = body(reply.frame, 52, bytes.fromhex(victim[2:]))
        return replace(reply, frame=frame, update=public)

    rewrite_update(federation, impersonate)
    grid = federation.grid
    honest_order = grid.get_node_ids

    def bad_first():
        return sorted(honest_order(), reverse=True)

    grid.get_node_ids = bad_first
    federation.run()
    assert only_exclusion(federation).reason == "binding"
    assert federation.bundle().rounds[1].manifest.exclusions == ()


def test_a_false_fingerprint_leads_to_an_attempt_without_its_signer(federate, caplog):
    federation = federate(rounds=1)
    bad = federation.nodes[BAD]

    def lie(deliver, message, index):
        order = wire.parse_order(message.content)
        reply = deliver(message)
        if index == BAD and isinstance(order, EvaluateOrder) and order.manifest.attempt == 1:
            parsed = wire.parse_evaluate_reply(reply.content)
            statement = parsed.fingerprint.statement
            numbers = tuple((n + 1) % MODULUS for n in statement.fingerprints)
            signed = sign(
                statement.model_copy(update={"fingerprints": numbers}),
                bad.home.signer,
                federation.stage.deployment.domain,
            )
            reply.content = wire.reply_content(replace(parsed, fingerprint=signed))
        return reply

    federation.make_grid().messages.append(lie)
    with caplog.at_level(logging.WARNING):
        run_without(federation)
    (entry,) = federation.bundle().rounds
    assert entry.manifest.attempt == 2
    assert [old.manifest.attempt for old in entry.superseded] == [1]
    listed = only_exclusion(federation)
    assert listed.reason == "binding"
    assert "no valid fingerprints in attempt 1" in listed.detail
    assert any("signed false fingerprints" in r.getMessage() for r in caplog.records)


# --- broken apps -----------------------------------------------------------------------------


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
        allowed = {"reports", "update", "fingerprint", "evaluation"}
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


@pytest.mark.slow
def test_garbage_in_place_of_a_reply_is_left_out_as_malformed(federate):
    federation = federate(rounds=1)

    def garble(deliver, message, index):
        reply = deliver(message)
        if index == BAD and message.metadata.message_type == MessageType.TRAIN:
            content = RecordDict()
            content["arrays"] = reply.content["arrays"]
            content["metrics"] = MetricRecord({"num-examples": 10**6})
            content["twopm"] = ConfigRecord({"update": b"{", "reports": b"[]"})
            reply.content = content
        return reply

    federation.make_grid().messages.append(garble)
    run_without(federation)
    assert only_exclusion(federation).reason == "malformed"


@pytest.mark.slow
def test_a_node_that_flower_calls_unavailable_is_listed_so(federate):
    federation = federate(rounds=2)

    def gone(deliver, message, index):
        order = wire.parse_order(message.content)
        if index == BAD and isinstance(order, TrainOrder) and order.round == 2:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
        return deliver(message)

    federation.make_grid().messages.append(gone)
    federation.run()
    assert only_exclusion(federation, round_=2).reason == "unavailable"
