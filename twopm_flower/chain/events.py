"""A stream of a chain's events that survives restarts and reorgs: each event comes once.

What was read stands in a SQLite file, together with the hashes of the blocks that it was read
from. When a block's hash changes, the stream goes back to the last block that is still the
same and reads on from there. An event is named by what it says, not by its block: one that
was mined again elsewhere is not handed over a second time, and one that was handed over and
did not come back is handed over as retracted.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from twopm_flower.chain.base import ChainEvent, EventReading
from twopm_flower.chain.event_continuity import continues
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.chain.sqlite_writing import open_to_write, writing
from twopm_flower.errors import ChainError, ChainUnavailable, WrongChain
from twopm_flower.records.digest import tagged_digest

BLOCKS_AT_ONCE = 2000
REMEMBERED_BLOCKS = 256
RETRACT_AFTER_BLOCKS = 12

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (one INTEGER PRIMARY KEY CHECK (one = 1), block INTEGER);
CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    identity TEXT PRIMARY KEY, name TEXT NOT NULL, task_id TEXT, said TEXT NOT NULL,
    block_number INTEGER NOT NULL, block_hash TEXT NOT NULL, transaction_hash TEXT NOT NULL,
    place INTEGER NOT NULL,
    is_gone INTEGER NOT NULL DEFAULT 0, is_delivered INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS events_in_order ON events (block_number, place);
CREATE INDEX IF NOT EXISTS events_to_deliver ON events (is_delivered, is_gone);
CREATE INDEX IF NOT EXISTS events_of_task ON events (task_id, name);
"""
_EVENT = (
    "SELECT identity, name, said, block_number, block_hash, transaction_hash, place, is_gone"
    " FROM events"
)


class HasEvents(EventReading, Protocol):
    """The part of a chain's reader that a stream needs."""

    def head_block(self) -> int:
        """Return the number of the latest block."""
        ...


@runtime_checkable
class LosesEvents(Protocol):
    """A reader of a chain on which those who act can keep their own events from being told."""

    def lost_events(self, task_id: str) -> bool:
        """Tell whether the chain itself does not hold all events of a task."""
        ...


@dataclass(frozen=True)
class Delivered:
    """An event that is handed over.

    Attributes
    ----------
    event : ChainEvent
        What happened, and where it stands.
    identity : str
        Digest of what it says; the same wherever it is mined.
    retracted : bool
        It was handed over before, and the chain does not hold it any more.
    """

    event: ChainEvent
    identity: str
    retracted: bool


class EventStream:
    """Hands over each event once, in order, from where it stopped.

    Parameters
    ----------
    reader : ChainReader
        The chain. One that lags behind, or has no blocks yet, is waited for.
    store : Path
        The file that keeps the cursor; one process at a time may use it.
    confirmations : int
        How many blocks an event must be in, its own included, before it is handed over.
    first_block : int
        Where a new stream starts.
    blocks_at_once : int
        How many blocks one question covers at most; fewer where the endpoint refuses so many.
    retract_after : int
        An event that was handed over is retracted when its block is gone and it has not come
        back within this many blocks.

    Raises
    ------
    ChainError
        Another process uses the store, or it is no database.

    Examples
    --------
    >>> with EventStream(reader, Path("events.sqlite")) as stream:  # doctest: +SKIP
    ...     for item in stream:
    ...         handle(item.event)
    ...         stream.ack(item)
    """

    def __init__(
        self,
        reader: HasEvents,
        store: Path,
        *,
        confirmations: int = 1,
        first_block: int = 0,
        blocks_at_once: int = BLOCKS_AT_ONCE,
        retract_after: int = RETRACT_AFTER_BLOCKS,
    ) -> None:
        self._reader = reader
        self._confirmations = confirmations
        self._first_block = first_block
        self._blocks_at_once = self._span = blocks_at_once
        self._retract_after = retract_after
        self._with_gaps: set[str] = set()
        self._lock = threading.RLock()
        store.parent.mkdir(parents=True, exist_ok=True)
        self._process_lock = ProcessLock(
            store.with_name(store.name + ".lock"), owner="a stream of events"
        )
        try:
            self._connection = open_to_write(store, "a store of events")
        except ChainError:
            self._process_lock.release()
            raise
        self._connection.executescript(_SCHEMA)
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO cursor VALUES (1, ?)", (first_block - 1,))

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was not acknowledged is handed over again next time."""
        with self._lock:
            self._connection.close()
        self._process_lock.release()

    @property
    def cursor(self) -> int:
        """The last block that was read."""
        with self._lock:
            return int(self._connection.execute("SELECT block FROM cursor").fetchone()[0])

    def __iter__(self) -> Iterator[Delivered]:
        """Read what is new and hand over all that was not acknowledged, then stop.

        An event that is not acknowledged comes again in the next iteration: a handler that is
        killed between handling and acknowledging finds its identity again.

        Raises
        ------
        ChainUnavailable
            Nobody answers, or not with blocks this old; what was read before is handed over
            first.
        WrongChain
            The endpoint hides events: what it shows does not add up.
        """
        handed: set[tuple[str, bool]] = set()
        more = True
        yield from self._waiting(handed)
        while more:
            more = self._read_on()
            yield from self._waiting(handed)

    def ack(self, item: Delivered) -> None:
        """Say that an event was handled: it is not handed over again."""
        with self._writing() as connection:
            if item.retracted:
                connection.execute("DELETE FROM events WHERE identity = ?", (item.identity,))
            else:
                connection.execute(
                    "UPDATE events SET is_delivered = 1 WHERE identity = ?", (item.identity,)
                )

    def _waiting(self, handed: set[tuple[str, bool]]) -> Iterator[Delivered]:
        with self._lock:
            horizon = self.cursor - self._retract_after
            gone = self._connection.execute(
                f"{_EVENT} WHERE is_delivered AND is_gone AND block_number <= ?"
                " ORDER BY block_number DESC, place DESC",
                (horizon,),
            ).fetchall()
            fresh = self._connection.execute(
                f"{_EVENT} WHERE NOT is_delivered AND NOT is_gone ORDER BY block_number, place"
            ).fetchall()
        for item in map(_delivered, (*gone, *fresh)):
            if (item.identity, item.retracted) not in handed:
                handed.add((item.identity, item.retracted))
                yield item

    def _read_on(self) -> bool:
        """Read the next blocks; return whether there may be more."""
        last_readable = self._reader.head_block() - self._confirmations + 1
        cursor = self.cursor
        if last_readable < cursor:
            # The endpoint lags behind another that we asked before.
            return False
        ancestor = self._common_ancestor()
        if ancestor < cursor:
            self._rewind(ancestor)
            cursor = ancestor
        if last_readable == cursor:
            return False
        first, furthest = cursor + 1, min(last_readable, cursor + self._blocks_at_once)
        last, before = self._last_block(first, furthest)
        if before is None:
            return False
        # The block is asked for again: a reorg in between would mix two histories.
        events = self._ask(first, last)
        if events is None:
            return True
        if before != self._reader.block_hash(last):
            return False
        return not self._kept(events, last, before) or last < last_readable

    def _kept(self, events: tuple[ChainEvent, ...], last: int, last_hash: str) -> bool:
        """Store what was read, unless it is to be read again with another mind."""
        try:
            self._store(events, last, last_hash)
        except _HiddenEventsError as error:
            if self._is_lost(str(error.event.values["task_id"])):
                return False
            self._read_again(error.event)
            raise WrongChain(
                f"the endpoint hides events of task {error.event.values['task_id']} before block"
                f" {error.event.block_number}: {error.event.name} does not follow from what came"
                " before",
                hint="Ask another endpoint: this one hides or makes up events.",
            ) from error
        return True

    def _last_block(self, first: int, furthest: int) -> tuple[int, str | None]:
        """Return how far to read, and the hash of the block there; some numbers have no block."""
        last = min(furthest, first + self._span - 1)
        for number in (*range(last, first - 1, -1), *range(last + 1, furthest + 1)):
            shown = self._reader.block_hash(number)
            if shown is not None:
                return number, shown
        if furthest - first + 1 < self._blocks_at_once:
            return last, None
        raise ChainUnavailable(
            f"the endpoint has no block of {first} to {furthest}, and later ones",
            hint="Ask one that keeps the whole history, or start where the contracts were made.",
        )

    def _ask(self, first: int, last: int) -> tuple[ChainEvent, ...] | None:
        """Return the events of some blocks, or None when fewer blocks are to be asked for."""
        try:
            events = self._reader.events(first, last)
        except ChainError as error:
            # Endpoints limit what one answer may hold, and anybody can make many events.
            if type(error) is not ChainError or last == first:
                raise
            self._span = (last - first + 1) // 2
            return None
        self._span = min(self._blocks_at_once, self._span + self._span // 8 + 1)
        return events

    def _common_ancestor(self) -> int:
        """Return the last block that is still as it was read."""
        with self._lock:
            known = self._connection.execute(
                "SELECT number, hash FROM blocks ORDER BY number DESC"
            ).fetchall()
        for place, (number, known_hash) in enumerate(known):
            shown = self._reader.block_hash(number)
            if shown == known_hash:
                return self.cursor if place == 0 else int(number)
            if shown is None:
                # It said that it has this block, so its answers come from several nodes.
                return self.cursor
        return self.cursor if not known else self._first_block - 1

    def _rewind(self, ancestor: int) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM blocks WHERE number > ?", (ancestor,))
            connection.execute(
                "DELETE FROM events WHERE block_number > ? AND NOT is_delivered", (ancestor,)
            )
            connection.execute("UPDATE events SET is_gone = 1 WHERE block_number > ?", (ancestor,))
            connection.execute("UPDATE cursor SET block = ?", (ancestor,))

    def _is_lost(self, task_id: str) -> bool:
        """Whether nobody can show the missing events: one such task must not stop all others."""
        lost = isinstance(self._reader, LosesEvents) and self._reader.lost_events(task_id)
        if lost:
            self._with_gaps.add(task_id)
        return lost

    def _read_again(self, event: ChainEvent) -> None:
        """Go back to where the task was last heard of, and believe nothing that came since.

        What was hidden may have been passed, and what was heard may have been made up.
        """
        with self._lock:
            heard = self._connection.execute(
                "SELECT max(block_number) FROM events WHERE task_id = ? AND NOT is_gone"
                " AND name IN ('task_created', ?)",
                (event.values["task_id"], event.name),
            ).fetchone()[0]
            restart = self._first_block - 1 if heard is None else heard - 1
            self._rewind(min(self.cursor, restart))

    def _store(self, events: tuple[ChainEvent, ...], last: int, last_hash: str) -> None:
        with self._writing() as connection:
            for event in events:
                self._store_event(connection, event)
            hashes = {event.block_number: event.block_hash for event in events} | {last: last_hash}
            connection.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?)", hashes.items())
            connection.execute(
                "DELETE FROM blocks WHERE number NOT IN"
                " (SELECT number FROM blocks ORDER BY number DESC LIMIT ?)",
                (REMEMBERED_BLOCKS,),
            )
            connection.execute("UPDATE cursor SET block = ?", (last,))

    def _store_event(self, connection: sqlite3.Connection, event: ChainEvent) -> None:
        said = json.dumps(event.values, sort_keys=True)
        identity = tagged_digest("event/v1", event.name.encode(), b"\0", said.encode())
        task_id = event.values.get("task_id")
        before = connection.execute(
            "SELECT said FROM events WHERE task_id = ? AND name = ? AND NOT is_gone"
            " AND identity != ? ORDER BY block_number DESC, place DESC LIMIT 1",
            (task_id, event.name, identity),
        ).fetchone()
        previous: dict[str, Any] | None = None if before is None else json.loads(before[0])
        known = connection.execute(
            "SELECT 1 FROM events WHERE identity = ? AND NOT is_gone", (identity,)
        ).fetchone()
        if known is not None:
            return
        follows = continues(event, previous, from_start=self._first_block == 0)
        if not follows and task_id not in self._with_gaps:
            raise _HiddenEventsError(event)
        connection.execute(
            "INSERT INTO events (identity, name, task_id, said, block_number, block_hash,"
            " transaction_hash, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (identity) DO UPDATE SET block_number = excluded.block_number,"
            " block_hash = excluded.block_hash, transaction_hash = excluded.transaction_hash,"
            " place = excluded.place, is_gone = 0",
            (
                identity,
                event.name,
                task_id,
                said,
                event.block_number,
                event.block_hash,
                event.transaction_hash,
                event.index,
            ),
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, writing(self._connection):
            yield self._connection


class _HiddenEventsError(Exception):
    def __init__(self, event: ChainEvent) -> None:
        super().__init__(event.name)
        self.event = event


def _delivered(row: tuple[Any, ...]) -> Delivered:
    identity, name, said, block_number, block_hash, transaction_hash, place, is_gone = row
    event = ChainEvent(
        name=name,
        values=json.loads(said),
        block_number=block_number,
        block_hash=block_hash,
        transaction_hash=transaction_hash,
        index=place,
    )
    return Delivered(event=event, identity=identity, retracted=bool(is_gone))
