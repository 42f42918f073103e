"""A stream of events over reorgs, restarts, and endpoints that lag."""

import random
from itertools import count

import pytest

from twopm_flower.chain.base import ChainEvent
from twopm_flower.chain.events import EventStream
from twopm_flower.errors import ChainError, ChainUnavailable


class SimulatedChain:
    """Blocks of events that can be taken back; `lag` blocks are not shown."""

    def __init__(self):
        self._names, self.blocks, self.lag = count(), [], 0

    def mine(self, *events):
        self.blocks.append((f"0x{next(self._names):064x}", list(events)))

    def take_back(self, depth):
        """Undo the last blocks and return what happened in them."""
        undone = [event for _, events in self.blocks[-depth:] for event in events]
        del self.blocks[-depth:]
        return undone

    def head_block(self):
        return len(self.blocks) - 1 - self.lag

    def block_hash(self, number):
        return self.blocks[number][0] if 0 <= number <= self.head_block() else None

    def events(self, first_block, last_block):
        return tuple(
            ChainEvent("receipts_anchored", {"root": root}, number, hash_, hash_, index)
            for number, (hash_, roots) in enumerate(self.blocks)
            if first_block <= number <= min(last_block, self.head_block())
            for index, root in enumerate(roots)
        )


@pytest.fixture
def chain():
    chain = SimulatedChain()
    chain.mine()
    return chain


def heard(stream):
    told = []
    for item in stream:
        told.append(("-" if item.retracted else "") + item.event.values["root"])
        stream.ack(item)
    return told


def test_each_event_comes_once_and_the_stream_goes_on_where_it_stopped(chain, tmp_path):
    chain.mine("a", "b")
    with EventStream(chain, tmp_path / "s") as stream:
        assert heard(stream) == ["a", "b"]
        assert heard(stream) == []
    chain.mine("c")
    with EventStream(chain, tmp_path / "s") as stream:
        assert heard(stream) == ["c"]


def test_what_was_not_acknowledged_comes_again(chain, tmp_path):
    chain.mine("a", "b")
    with EventStream(chain, tmp_path / "s") as stream:
        first, second = list(stream)
        stream.ack(second)
    with EventStream(chain, tmp_path / "s") as stream:
        [again] = list(stream)
        assert again == first


def test_an_event_mined_again_elsewhere_does_not_come_again(chain, tmp_path):
    chain.mine("a")
    chain.mine("b")
    with EventStream(chain, tmp_path / "s") as stream:
        assert heard(stream) == ["a", "b"]
        assert chain.take_back(2) == ["a", "b"]
        chain.mine("b")
        chain.mine("c", "a")
        assert heard(stream) == ["c"]


def test_an_event_that_is_gone_for_good_is_retracted_and_may_come_back_as_news(chain, tmp_path):
    with EventStream(chain, tmp_path / "s", retract_after=3) as stream:
        chain.mine("a")
        assert heard(stream) == ["a"]
        chain.take_back(1)
        for _ in range(3):
            chain.mine()
            assert heard(stream) == []
        chain.mine()
        assert heard(stream) == ["-a"]
        chain.mine("a")
        assert heard(stream) == ["a"]


def test_events_wait_for_their_confirmations(chain, tmp_path):
    with EventStream(chain, tmp_path / "s", confirmations=3) as stream:
        chain.mine("a")
        chain.mine()
        assert heard(stream) == []
        chain.take_back(2)
        chain.mine("b")
        chain.mine()
        chain.mine()
        assert heard(stream) == ["b"]


def test_an_endpoint_that_lags_or_is_empty_moves_nothing_back(chain, tmp_path):
    for root in "abc":
        chain.mine(root)
    with EventStream(chain, tmp_path / "s") as stream:
        assert heard(stream) == ["a", "b", "c"]
        for lag in (2, 10):
            chain.lag = lag
            assert heard(stream) == []
            assert stream.cursor == 3
        chain.lag = 0
        chain.mine("d")
        assert heard(stream) == ["d"]


def test_a_reorg_deeper_than_all_that_is_remembered_is_followed(chain, tmp_path, monkeypatch):
    monkeypatch.setattr("twopm_flower.chain.events.REMEMBERED_BLOCKS", 2)
    with EventStream(chain, tmp_path / "s", blocks_at_once=1) as stream:
        for root in "abcdef":
            chain.mine(root)
        assert heard(stream) == list("abcdef")
        chain.take_back(4)
        for root in "fedcg":
            chain.mine(root)
        assert heard(stream) == ["g"]


def test_a_store_has_one_reader_at_a_time(chain, tmp_path):
    with EventStream(chain, tmp_path / "s"), pytest.raises(ChainError, match="in use"):
        EventStream(chain, tmp_path / "s")


@pytest.mark.parametrize("seed", range(10))
def test_what_was_told_is_what_the_chain_holds_whatever_it_takes_back(chain, tmp_path, seed):
    chance, fresh, told = random.Random(seed), count(), []
    stream = EventStream(chain, tmp_path / "s", blocks_at_once=3, retract_after=2)
    pool = []
    for _ in range(40):
        step = chance.random()
        if step < 0.2 and len(chain.blocks) > 5:
            pool += chain.take_back(chance.randint(1, 4))
        elif step < 0.3:
            stream.close()
            stream = EventStream(chain, tmp_path / "s", blocks_at_once=3, retract_after=2)
        elif step < 0.6:
            told += heard(stream)
        pool.append(f"e{next(fresh)}")
        chance.shuffle(pool)
        # Some of what was taken back never returns.
        taken, pool = pool[:2], [root for root in pool[2:] if chance.random() < 0.9]
        chain.mine(*taken)
    for _ in range(12):
        chain.mine()
    told += heard(stream)
    told += heard(stream)
    stream.close()
    standing = set()
    for item in told:
        if item.startswith("-"):
            standing.remove(item[1:])
        else:
            assert item not in standing
            standing.add(item)
    assert standing == {root for _, roots in chain.blocks for root in roots}


def test_a_store_that_is_no_database_is_said_so_and_not_kept_locked(chain, tmp_path):
    store = tmp_path / "s"
    store.write_bytes(b"garbage" * 1000)
    for _ in range(2):
        with pytest.raises(ChainError, match="cannot be used as a store of events"):
            EventStream(chain, store)


class SlottedChain(SimulatedChain):
    """A chain of slots some of which have no block, as on Solana."""

    def block_hash(self, number):
        hash_ = super().block_hash(number)
        return None if hash_ is None or number % 5 == 4 else hash_


def test_a_slot_without_a_block_at_the_end_of_a_question_stops_nothing(tmp_path):
    chain = SlottedChain()
    for number in range(23):
        chain.mine(*([] if number % 5 == 4 else [f"e{number}"]))
    with EventStream(chain, tmp_path / "s", blocks_at_once=5) as stream:
        assert heard(stream) == [f"e{number}" for number in range(23) if number % 5 != 4]


def test_a_history_that_the_endpoint_no_longer_has_is_said_so(chain, tmp_path, monkeypatch):
    for _ in range(9):
        chain.mine()
    monkeypatch.setattr(chain, "block_hash", lambda _number: None)
    with (
        EventStream(chain, tmp_path / "s", blocks_at_once=5) as stream,
        pytest.raises(ChainUnavailable, match="no block of 0 to 4"),
    ):
        heard(stream)


def test_more_events_than_an_endpoint_shows_at_once_are_asked_for_piece_by_piece(
    chain, tmp_path, monkeypatch
):
    whole, asked = chain.events, []
    for number in range(16):
        chain.mine(f"e{number}")

    def bounded(first_block, last_block):
        asked.append(last_block - first_block + 1)
        found = whole(first_block, last_block)
        if len(found) > 3:
            raise ChainError("query returned more than 3 results")
        return found

    monkeypatch.setattr(chain, "events", bounded)
    with EventStream(chain, tmp_path / "s") as stream:
        assert heard(stream) == [f"e{number}" for number in range(16)]
        chain.mine("more")
        assert heard(stream) == ["more"]
    assert len(asked) < 20


def test_an_endpoint_that_refuses_every_question_is_an_error(chain, tmp_path, monkeypatch):
    def refuse(_first_block, _last_block):
        raise ChainError("method not found")

    monkeypatch.setattr(chain, "events", refuse)
    chain.mine("a")
    with (
        EventStream(chain, tmp_path / "s") as stream,
        pytest.raises(ChainError, match="method not found"),
    ):
        heard(stream)
