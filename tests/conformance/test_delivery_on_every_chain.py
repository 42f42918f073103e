from contextlib import suppress
from dataclasses import replace

import pytest
from chain_stage import digest

from twopm_flower.chain.base import AnchorCall, AttestCall, FinaliseCall, RoundCall
from twopm_flower.errors import ChainError, ChainUnavailable, RecordConflict, TransactionReverted


def test_signed_bytes_may_be_sent_any_number_of_times_by_anybody(stage, stranger, nodes):
    task_id = stage.running_task(nodes)
    call = RoundCall(task_id, 1, 1, digest(5), digest(6))
    assert stage.connector.already_done(call) is None
    signed = stage.connector.sign_call(call)
    assert signed == replace(signed, raw=bytes(signed.raw))
    assert stage.connector.already_done(call) is None
    assert stage.connector.inclusion(signed.transaction_hash) is None
    senders = (stage, stage, stranger)
    assert [sender.connector.broadcast(signed) for sender in senders] == [True] * 3
    receipt = stage.connector.wait(signed.transaction_hash)
    assert (receipt.status, receipt.transaction_hash) == (1, signed.transaction_hash)
    assert stage.connector.broadcast(signed)
    assert stage.connector.already_done(call) == signed.transaction_hash
    assert len(stage.connector.round_records(task_id)) == 1
    with pytest.raises(RecordConflict):
        stage.connector.already_done(replace(call, updates_root=digest(7)))


def test_where_a_transaction_stands_is_told(stage, nodes):
    task_id = stage.running_task(nodes)
    record = stage.record(task_id, 1)
    at_first = stage.connector.inclusion(record.transaction_hash)
    assert (at_first.block_number, at_first.block_hash) == (
        record.block_number,
        record.block_hash,
    )
    assert at_first.succeeded
    assert at_first.confirmations >= 1
    stage.record(task_id, 2)
    later = stage.connector.inclusion(record.transaction_hash)
    assert later.confirmations >= at_first.confirmations
    assert later.confirmations <= stage.connector.head_block() - record.block_number + 1
    unknown = "0x" + "12" * ((len(record.transaction_hash) - 2) // 2)
    assert stage.connector.inclusion(unknown) is None


def test_what_is_in_no_block_is_not_awaited_for_ever(stage, nodes):
    task_id = stage.running_task(nodes)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    with pytest.raises(ChainUnavailable):
        stage.connector.wait(signed.transaction_hash, timeout_s=0.1)


def test_every_kind_of_call_is_delivered_by_its_signed_bytes(stage, nodes):
    task_id = stage.finished_rounds(nodes, rounds=1)
    last = stage.last_record(task_id)
    given = {node.address: stage.model_signature(task_id, node) for node in nodes}
    calls = (
        AttestCall(task_id, last, digest(7), digest(8), given, 1),
        FinaliseCall(task_id, last, digest(7), digest(8), given),
        AnchorCall(task_id, 3),
    )
    for call in calls:
        assert stage.connector.already_done(call) is None
        signed = stage.connector.sign_call(call)
        assert stage.connector.broadcast(signed)
        stage.connector.wait(signed.transaction_hash)
        assert stage.connector.already_done(call) == signed.transaction_hash
    for conflicting in (
        replace(calls[0], model_digest=digest(9)),
        replace(calls[1], metrics_digest=digest(9)),
        replace(calls[2], count=4),
    ):
        with pytest.raises(RecordConflict):
            stage.connector.already_done(conflicting)


def test_what_the_rules_would_refuse_is_not_signed(stage, stranger, nodes, running):
    with pytest.raises(TransactionReverted):
        stage.connector.sign_call(RoundCall(running, 9, 1, digest(5), digest(6)))
    with pytest.raises(TransactionReverted):
        stranger.connector.sign_call(RoundCall(running, 3, 1, digest(5), digest(6)))


def test_signed_bytes_whose_time_is_over_change_nothing(stage, nodes):
    """Signed for a task that has moved on meanwhile, whatever the chain says to it."""
    task_id = stage.running_task(nodes)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    stage.record(task_id, 1)
    before = stage.connector.round_records(task_id)
    with suppress(TransactionReverted):
        stage.connector.broadcast(signed)
    assert stage.connector.round_records(task_id) == before


def test_bytes_that_are_no_transaction_are_refused(stage, nodes):
    task_id = stage.running_task(nodes)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    flipped = bytearray(signed.raw)
    flipped[len(flipped) // 2] ^= 1
    for raw in (b"", b"\0" * 40, bytes(signed.raw[:-1]), bytes(flipped)):
        with suppress(ChainError):
            assert not stage.connector.broadcast(replace(signed, raw=raw))
    assert stage.connector.round_records(task_id) == ()


def test_a_chain_has_nonces_or_says_that_it_has_none(stage, nodes):
    nonce = stage.connector.next_nonce()
    task_id = stage.running_task(nodes)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    if nonce is None:
        assert signed.nonce is None
        with pytest.raises(ChainError):
            stage.connector.sign_filler(0)
    else:
        assert signed.nonce == stage.connector.next_nonce() > nonce
