"""Receipts on their way to a chain: nothing is lost or sent twice, whatever stops it where."""

import sqlite3
import stat
import threading
from contextlib import closing

import pytest
from local_chains import open_chain
from lying_service import SERVICE, small_service, word
from service_process import desk_of
from service_requests import NOW, ask

from twopm_flower.errors import ChainUnavailable, ConfigError, InferenceError
from twopm_flower.inference.anchoring import Anchorer
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.records.merkle import MerkleTree, receipt_leaf, root_from_proof


class Killed(BaseException):
    """Ends a process at once, as far as what comes after it can tell."""


class Chain:
    """A real chain; a test may cut it off, or end the process before or after it anchors."""

    def __init__(self, connector):
        self.connector = connector
        self.away = False
        self.die = None
        self.sent = []
        self.meanwhile = None

    def anchor_receipts(self, root, count):
        if self.away:
            raise ChainUnavailable("nobody answers")
        if self.die == "before":
            raise Killed
        if self.meanwhile:
            self.meanwhile()
        self.sent.append((root, count))
        anchor = self.connector.anchor_receipts(root, count)
        if self.die == "after":
            raise Killed
        return anchor


@pytest.fixture(scope="module")
def connector(tmp_path_factory):
    with open_chain("ledger", tmp_path_factory.mktemp("ledger")) as chain:
        yield chain.connector(chain.local.signer)


@pytest.fixture
def chain(connector):
    return Chain(connector)


@pytest.fixture
def desk(tmp_path):
    desk = desk_of(small_service(), tmp_path, now=lambda: float(NOW))
    yield desk
    desk.store.close()


@pytest.fixture
def again(tmp_path):
    """Open the store as a process does that is started after another."""
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    yield store
    store.close()


def receipts(desk, count):
    """Answer so many requests; return the digests of their receipts."""
    before = {digest for _, digest in desk.store.without_batch()}
    for _ in range(count):
        desk.answer(ask(small_service()).body())
    return [digest for _, digest in desk.store.without_batch() if digest not in before]


def check_anchored(desk, chain, digests):
    """Check that receipts are anchored on the chain, by their proofs alone."""
    issuer = chain.connector.account
    for digest in digests:
        said = desk.anchoring(digest)
        proof = [bytes.fromhex(sibling[2:]) for sibling in said.proof]
        root = "0x" + root_from_proof(receipt_leaf(issuer, digest), proof).hex()
        anchor = chain.connector.receipt_anchor(issuer, root)
        assert (said.root, said.count, said.issuer) == (root, anchor.count, issuer)
        assert said.block_number == anchor.block_number
        assert said.transaction_hash == anchor.transaction_hash


def anchorer(store, chain, **options):
    return Anchorer(store, chain, chain.connector.account, **options)


def test_receipts_are_anchored_together_and_each_has_its_proof(desk, chain):
    digests = receipts(desk, 5)
    assert desk.store.unanchored() == 5
    assert desk.anchoring(digests[0]) is None
    assert anchorer(desk.store, chain).anchor() == 0
    assert [count for _, count in chain.sent] == [5]
    check_anchored(desk, chain, digests)
    assert anchorer(desk.store, chain).anchor() == 0
    assert len(chain.sent) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_batch_whose_sender_was_killed_is_anchored_by_the_next_one_as_it_was(
    desk, again, chain, when
):
    digests = receipts(desk, 3)
    chain.die = when
    with pytest.raises(Killed):
        anchorer(desk.store, chain).anchor()
    (batch,) = again.open_batches()
    assert again.unanchored() == 3
    assert desk.anchoring(digests[0]) is None
    digests += receipts(desk, 2)
    chain.die = None
    assert anchorer(again, chain).anchor() == 0
    assert set(chain.sent) == {(batch.root, 3), (desk.anchoring(digests[-1]).root, 2)}
    check_anchored(desk, chain, digests)


def test_a_process_that_was_killed_before_it_had_a_whole_batch_leaves_none(desk, again, chain):
    digests = receipts(desk, 3)
    numbers = [number for number, _ in desk.store.without_batch()]

    with pytest.raises(Killed):
        desk.store.add_batch(chain.connector.account, word("root"), Some(numbers))
    assert again.open_batches() == []
    assert anchorer(again, chain).anchor() == 0
    check_anchored(desk, chain, digests)


class Some(list):
    """Ends the process when all but the last were taken."""

    def __iter__(self):
        yield from self[:-1]
        raise Killed


def test_while_the_chain_is_away_requests_are_answered_and_receipts_wait(desk, chain, caplog):
    chain.away = True
    with anchorer(desk.store, chain, every_s=0.01):
        digests = receipts(desk, 3)
    assert desk.store.unanchored() == 3
    assert "receipts wait to be anchored: nobody answers" in caplog.text
    chain.away = False
    with anchorer(desk.store, chain, every_s=1000):
        digests += receipts(desk, 1)
    # What is left when a service ends is anchored at its end.
    assert desk.store.unanchored() == 0
    check_anchored(desk, chain, digests)


def test_a_fault_that_nobody_thought_of_does_not_end_anchoring(desk, chain, caplog):
    digests = receipts(desk, 1)
    failed = threading.Event()

    def fail_once():
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError("by surprise")

    chain.meanwhile = fail_once
    with anchorer(desk.store, chain, every_s=0.01):
        assert failed.wait(20)
    assert "by surprise" in caplog.text
    check_anchored(desk, chain, digests)


def test_receipts_that_come_while_a_batch_is_sent_are_of_the_next_one(desk, chain):
    digests = receipts(desk, 2)
    late = []

    def more():
        if not late:
            late.extend(receipts(desk, 1))

    chain.meanwhile = more
    assert anchorer(desk.store, chain).anchor() == 1
    check_anchored(desk, chain, digests)
    assert desk.anchoring(late[0]) is None
    assert anchorer(desk.store, chain).anchor() == 0
    check_anchored(desk, chain, [*digests, *late])


def test_two_services_of_one_home_never_put_a_receipt_into_two_batches(desk, again, chain):
    first = receipts(desk, 2)
    numbers = [number for number, _ in again.without_batch()]
    second = receipts(desk, 1)
    issuer = chain.connector.account
    leaves = [receipt_leaf(issuer, digest) for digest in first]
    desk.store.add_batch(issuer, "0x" + MerkleTree.of(leaves).root.hex(), numbers)
    everything = [*numbers, *(number for number, _ in again.without_batch())]
    with pytest.raises(InferenceError, match="2 of 3 receipts are in another batch"):
        again.add_batch(issuer, word("root"), everything)
    assert anchorer(again, chain).anchor() == 0
    check_anchored(desk, chain, [*first, *second])


def test_the_store_is_for_its_owner_only_and_so_is_what_stands_beside_it(tmp_path, desk):
    receipts(desk, 1)
    files = list(tmp_path.glob("receipts.sqlite*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_no_store_is_named(tmp_path, content):
    path = tmp_path / "receipts.sqlite"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"receipts\.sqlite cannot be used") as caught:
        ReceiptStore(path)
    assert caught.value.hint


def test_what_is_kept_is_readable_without_us(tmp_path, desk):
    receipts(desk, 2)
    with closing(sqlite3.connect(tmp_path / "receipts.sqlite")) as database:
        kept = database.execute("SELECT signed FROM receipts").fetchall()
    assert all(SERVICE.address.encode() in signed for (signed,) in kept)
