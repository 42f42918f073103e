"""Delivery on a node with a pool, blocks on demand, and reorgs."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
from anvil_process import ANVIL_KEY, rpc, running_anvil
from chain_stage import Stage, digest

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.events import EventStream
from twopm_flower.chain.evm import EvmConnector, deploy
from twopm_flower.chain.outbox import Outbox
from twopm_flower.chain.outbox_delivery import MAX_FEE_FACTOR
from twopm_flower.errors import ChainUnavailable
from twopm_flower.signer.keystore import LocalSigner


@pytest.fixture(scope="module")
def url():
    with running_anvil() as url:
        yield url


@pytest.fixture(scope="module")
def anvil(url):
    signer = LocalSigner(ANVIL_KEY)
    return Stage(EvmConnector(url, deploy(url, signer), signer))


@pytest.fixture(scope="module")
def task_of(anvil):
    nodes = anvil.registered_nodes(2)
    return lambda rounds=1: anvil.running_task(nodes, rounds=rounds)


@contextmanager
def no_blocks(url):
    """Let transactions wait in the pool until a block is asked for."""
    rpc(url, "evm_setAutomine", False)
    try:
        yield
    finally:
        rpc(url, "evm_setAutomine", True)
        rpc(url, "evm_mine")


class Watched:
    """An outbox whose clock jumps ahead by a minute with each sending, and that tells."""

    def __init__(self, path, then=None):
        self.now, self.sent, self.steps, self.then = 0.0, 0, [], then
        self.outbox = Outbox(path, observe=self._observe, clock=lambda: self.now, confirmations=3)

    def _observe(self, step, number):
        self.steps.append((step, number))
        if step == "sent":
            self.now += 60
            self.sent += 1
            if self.then is not None:
                self.then(self.sent)


def first_round(task_id):
    return RoundCall(task_id, 1, 1, digest(5), digest(6))


def test_a_transaction_that_is_stuck_bids_more_on_the_same_nonce(url, anvil, task_of, tmp_path):
    task_id = task_of()
    mined = Watched(tmp_path / "o.sqlite", lambda sent: sent == 3 and rpc(url, "evm_mine"))
    mined.outbox.enqueue(first_round(task_id))
    with no_blocks(url):
        assert mined.outbox.deliver(anvil.connector, receipt_timeout_s=60) == 1
    [entry] = mined.outbox.entries()
    bids = [attempt.transaction for attempt in entry.attempts]
    assert len(bids) == 3
    assert len({bid.nonce for bid in bids}) == 1
    assert all(8 * b.fee >= 9 * a.fee for a, b in pairwise(bids))
    [record] = anvil.connector.round_records(task_id)
    assert record.transaction_hash == entry.transaction_hash == bids[-1].transaction_hash


def test_no_bid_is_more_than_five_times_the_first(url, anvil, task_of, tmp_path):
    task_id = task_of()
    watched = Watched(tmp_path / "o.sqlite")
    watched.outbox.enqueue(first_round(task_id))
    with no_blocks(url):
        for _ in range(14):
            with pytest.raises(ChainUnavailable) as waiting:
                watched.outbox.deliver(anvil.connector, receipt_timeout_s=0)
        assert "its fee is at 5 times the first" in str(waiting.value)
        [entry] = watched.outbox.pending()
        fees = [attempt.transaction.fee for attempt in entry.attempts]
        assert 4 * fees[0] < fees[-1] <= MAX_FEE_FACTOR * fees[0]
        rpc(url, "evm_mine")
        watched.outbox.deliver(anvil.connector, receipt_timeout_s=30)
    assert len(anvil.connector.round_records(task_id)) == 1


def test_dearer_blocks_do_not_lift_the_limit_until_somebody_says_so(url, anvil, task_of, tmp_path):
    task_id = task_of()
    watched = Watched(tmp_path / "o.sqlite")
    watched.outbox.enqueue(first_round(task_id))
    with no_blocks(url):
        with pytest.raises(ChainUnavailable):
            watched.outbox.deliver(anvil.connector, receipt_timeout_s=0)
        [entry] = watched.outbox.pending()
        limit = MAX_FEE_FACTOR * entry.attempts[0].transaction.fee
        # A block whose base fee is above the limit cannot hold what was sent.
        rpc(url, "anvil_setNextBlockBaseFeePerGas", hex(20 * limit))
        rpc(url, "evm_mine")
        for _ in range(3):
            with pytest.raises(ChainUnavailable, match="5 times"):
                watched.outbox.deliver(anvil.connector, receipt_timeout_s=0)
        [entry] = watched.outbox.pending()
        assert all(attempt.transaction.fee <= limit for attempt in entry.attempts)
    watched.outbox.retry_failed()
    assert watched.outbox.deliver(anvil.connector, receipt_timeout_s=30) == 1
    [entry] = watched.outbox.entries()
    assert entry.attempts[-1].transaction.fee > limit
    assert len(anvil.connector.round_records(task_id)) == 1
    rpc(url, "anvil_setNextBlockBaseFeePerGas", hex(10**9))
    rpc(url, "evm_mine")


def test_what_the_pool_lost_is_sent_again_with_the_same_bytes(url, anvil, task_of, tmp_path):
    calls = [first_round(task_of()) for _ in range(2)]
    outbox = Outbox(tmp_path / "o.sqlite")
    for call in calls:
        outbox.enqueue(call)
    with no_blocks(url):
        with pytest.raises(ChainUnavailable, match="not mined"):
            outbox.deliver(anvil.connector, receipt_timeout_s=0.1)
        sent = [entry.transaction_hash for entry in outbox.pending()]
        assert {entry.state for entry in outbox.pending()} == {"broadcast"}
        rpc(url, "anvil_dropAllTransactions")
        with pytest.raises(ChainUnavailable, match="not mined"):
            outbox.deliver(anvil.connector, receipt_timeout_s=0.1)
        rpc(url, "evm_mine")
        assert outbox.deliver(anvil.connector, receipt_timeout_s=30) == 2
    for call, transaction_hash in zip(calls, sent, strict=True):
        [record] = anvil.connector.round_records(call.task_id)
        assert record.transaction_hash == transaction_hash


def test_a_nonce_that_was_lost_is_used_up_by_a_filler(url, anvil, task_of, tmp_path):
    task_id, other = task_of(), task_of()
    watched = Watched(tmp_path / "o.sqlite")
    watched.outbox.enqueue(first_round(task_id))
    with no_blocks(url):
        lost = anvil.connector.sign_call(first_round(other))
        assert anvil.connector.broadcast(lost)
        with pytest.raises(ChainUnavailable):
            watched.outbox.deliver(anvil.connector, receipt_timeout_s=0)
        [entry] = watched.outbox.pending()
        assert entry.nonce == lost.nonce + 1
        rpc(url, "anvil_dropTransaction", lost.transaction_hash)
        enough = watched.sent + 2
        watched.then = lambda sent: sent == enough and rpc(url, "evm_mine")
        watched.outbox.deliver(anvil.connector, receipt_timeout_s=30)
    assert len(anvil.connector.round_records(task_id)) == 1
    assert anvil.connector.round_records(other) == ()
    [filler] = watched.outbox._store.fillers()
    assert filler.transaction.nonce == lost.nonce
    assert anvil.connector.inclusion(filler.transaction.transaction_hash).succeeded


def test_a_reorg_takes_records_back_and_they_come_again(url, anvil, task_of, tmp_path):
    task_id = task_of(2)
    watched = Watched(tmp_path / "o.sqlite")
    calls = [first_round(task_id), RoundCall(task_id, 2, 1, digest(7), digest(8))]
    for call in calls:
        watched.outbox.enqueue(call)
    assert watched.outbox.deliver(anvil.connector) == 2
    with EventStream(anvil.connector, tmp_path / "e.sqlite") as stream:
        told = read(stream)
        before = [record.block_hash for record in anvil.connector.round_records(task_id)]
        rpc(url, "evm_mine")
        rpc(url, "anvil_reorg", 3, [])
        assert anvil.connector.round_records(task_id) == ()
        assert watched.outbox.deliver(anvil.connector, receipt_timeout_s=30) == 2
        assert ("reorganised", 1) in watched.steps
        assert ("reorganised", 2) in watched.steps
        after = anvil.connector.round_records(task_id)
        assert [(r.round, r.manifest_digest) for r in after] == [(1, digest(5)), (2, digest(7))]
        assert not set(before) & {record.block_hash for record in after}
        told += read(stream)
    rounds = [
        (item.event.values["round"], item.retracted)
        for item in told
        if item.event.name == "round_recorded" and item.event.values["task_id"] == task_id
    ]
    assert rounds == [(1, False), (2, False)]
    assert len({item.identity for item in told}) == len(told)


def test_an_entry_is_confirmed_and_then_final_as_its_chain_grows(url, anvil, task_of, tmp_path):
    watched = Watched(tmp_path / "o.sqlite")
    watched.outbox.enqueue(first_round(task_of()))
    watched.outbox.deliver(anvil.connector)
    states = [watched.outbox.entries()[0].state]
    for blocks in (2, 70):
        rpc(url, "anvil_mine", hex(blocks))
        watched.outbox.deliver(anvil.connector)
        states.append(watched.outbox.entries()[0].state)
    assert states == ["mined", "confirmed", "final"]
    assert watched.outbox.settling() == ()


def read(stream):
    told = []
    for item in stream:
        told.append(item)
        stream.ack(item)
    return told
