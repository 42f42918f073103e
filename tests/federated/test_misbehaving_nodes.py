"""Malicious nodes and garbage: each is left out with its reason, and the others go on."""

import logging
import shutil
from dataclasses import replace

import pytest
from bad_node import BAD, only_exclusion, run_without
from flwr.app import (
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common.constant import ErrorCode

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
    aggregator = RoundAggregator(
        task, setting, NodePins(), asked=range(4), barred={}, expand=task.backend.expand
    )
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
