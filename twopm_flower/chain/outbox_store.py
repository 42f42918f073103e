"""The SQLite file of an outbox: what is to be done, and all bytes that were signed for it."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twopm_flower.chain.calls import Call, SignedTransaction
from twopm_flower.chain.facts import Inclusion
from twopm_flower.chain.outbox_calls import from_payload, key_of, lane_of, to_payload, words_for
from twopm_flower.chain.sqlite_writing import open_to_write, writing
from twopm_flower.errors import ChainError, RecordConflict

EntryState = Literal[
    "queued", "reserved", "signed", "broadcast", "mined", "confirmed", "final", "failed"
]
ON_CHAIN: tuple[EntryState, ...] = ("mined", "confirmed", "final")

_VERSION = 2
_SCHEMA = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, subject TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    payload TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
    nonce INTEGER, first_fee TEXT,
    transaction_hash TEXT, block_number INTEGER, block_hash TEXT, problem TEXT,
    UNIQUE (kind, subject, round, attempt)
);
CREATE TABLE attempts (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    number INTEGER REFERENCES entries (number),
    raw BLOB NOT NULL, transaction_hash TEXT NOT NULL,
    nonce INTEGER, fee TEXT NOT NULL, expires_at INTEGER, sent_at REAL
);
CREATE INDEX attempts_of ON attempts (number);
"""
# What the first version wrote knows neither nonces nor fees; its bytes stay good.
_MIGRATION = """
INSERT INTO entries (number, kind, subject, round, attempt, payload, state,
                     transaction_hash, problem)
SELECT number, kind, task_id, round, attempt, payload,
       CASE WHEN state = 'broadcast' AND raw IS NULL THEN 'queued' ELSE state END,
       CASE WHEN state = 'mined' THEN transaction_hash END, problem
FROM first_entries;
INSERT INTO attempts (number, raw, transaction_hash, fee)
SELECT number, raw, transaction_hash, 0 FROM first_entries
WHERE raw IS NOT NULL AND transaction_hash IS NOT NULL;
DROP TABLE first_entries;
"""
_ENTRIES = (
    "SELECT number, kind, payload, state, nonce, first_fee, transaction_hash, block_number,"
    " block_hash, problem FROM entries"
)
_ATTEMPTS = "SELECT raw, transaction_hash, nonce, fee, expires_at, sent_at FROM attempts"


@dataclass(frozen=True)
class Attempt:
    """Bytes that were signed for an entry.

    Attributes
    ----------
    transaction : SignedTransaction
    sent_at : float or None
        When they were first sent, in seconds since the epoch; None before.
    """

    transaction: SignedTransaction
    sent_at: float | None


@dataclass(frozen=True)
class Entry:
    """One thing to be delivered.

    Attributes
    ----------
    number : int
        Its place in the order of delivery.
    call : Call
        What is to be done.
    state : str
        How far it got: ``queued``, ``reserved`` (it has a nonce), ``signed`` (its bytes are
        stored), ``broadcast``, ``mined`` (in a block, and the chain's state shows it),
        ``confirmed``, ``final``; or ``failed``.
    attempts : tuple of Attempt
        All bytes that were signed for it and may still take effect, oldest first.
    nonce : int or None
        The nonce that is reserved for it.
    first_fee : int or None
        What its first bytes bid; the limit for all later ones is a multiple of it.
    transaction_hash : str or None
        The transaction that did it; before that, the last one that was signed for it.
    block_number, block_hash
        Where it was last seen, once it is mined.
    problem : str or None
        Why it failed.
    """

    number: int
    call: Call
    state: EntryState
    attempts: tuple[Attempt, ...]
    nonce: int | None
    first_fee: int | None
    transaction_hash: str | None
    block_number: int | None
    block_hash: str | None
    problem: str | None

    @property
    def lane(self) -> str:
        """What it must be done in order with."""
        return lane_of(self.call)

    @property
    def transaction(self) -> SignedTransaction | None:
        """The bytes that were signed for it last."""
        return self.attempts[-1].transaction if self.attempts else None


class OutboxStore:
    """Reads and writes the file; each method that writes is one transaction.

    Parameters
    ----------
    path : Path
        The file; its folder is created. One that an earlier version wrote is brought up to
        date.

    Raises
    ------
    ChainError
        A later version wrote it, or it is no database.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        # What was queued survives a power cut: the caller goes on as if it were recorded.
        self._connection = open_to_write(path, "an outbox")
        try:
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ChainError(
                f"{path} cannot be used as an outbox: {error}",
                hint="Take the file from a backup, or use another one.",
            ) from error
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, call: Call) -> tuple[int, bool]:
        """Queue a call; return its number, and whether it is new.

        Raises
        ------
        RecordConflict
            Something else is queued, or was delivered, in its place.
        """
        key, payload = key_of(call), to_payload(call)
        with self._writing() as connection:
            row = connection.execute(
                "SELECT number, payload FROM entries"
                " WHERE kind = ? AND subject = ? AND round = ? AND attempt = ?",
                key,
            ).fetchone()
            if row is None:
                cursor = connection.execute(
                    "INSERT INTO entries (kind, subject, round, attempt, payload)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (*key, payload),
                )
                return int(cursor.lastrowid or 0), True
        if row[1] != payload:
            raise RecordConflict(
                f"the outbox holds something else as {words_for(call)} of {key[1]}",
                hint="A round that is repeated needs a new attempt number.",
            )
        return int(row[0]), False

    def entries(self, *states: EntryState, but: tuple[EntryState, ...] = ()) -> tuple[Entry, ...]:
        """Return the entries in these states, or all, in order; without those in `but`."""
        wanted = ", ".join("?" * len(states)) if states else "state"
        avoided = ", ".join("?" * len(but))
        where = f" WHERE state IN ({wanted}) AND state NOT IN ({avoided}) ORDER BY number"
        with self._lock:
            rows = self._connection.execute(_ENTRIES + where, (*states, *but)).fetchall()
            return tuple(self._entry(row) for row in rows)

    def entry(self, number: int) -> Entry:
        """Return an entry as it is now."""
        with self._lock:
            row = self._connection.execute(_ENTRIES + " WHERE number = ?", (number,)).fetchone()
            return self._entry(row)

    def reserve(self, number: int, first: int) -> int:
        """Reserve the first nonce from `first` on that no other entry holds, and return it."""
        with self._writing() as connection:
            taken = {
                row[0]
                for row in connection.execute(
                    "SELECT nonce FROM entries WHERE nonce IS NOT NULL AND number != ?"
                    " AND state IN ('reserved', 'signed', 'broadcast')",
                    (number,),
                )
            }
            nonce = first
            while nonce in taken:
                nonce += 1
            connection.execute(
                "UPDATE entries SET nonce = ?, state = 'reserved' WHERE number = ?",
                (nonce, number),
            )
        return nonce

    def release(self, number: int) -> None:
        """Give an entry's nonce back; the bytes that were signed are kept and looked for."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET nonce = NULL, first_fee = NULL, state = 'queued'"
                " WHERE number = ?",
                (number,),
            )

    def signed(self, number: int, transaction: SignedTransaction) -> None:
        """Keep bytes that were signed for an entry."""
        with self._writing() as connection:
            self._keep(number, transaction)
            connection.execute(
                "UPDATE entries SET state = 'signed', transaction_hash = ?, nonce = ?,"
                " first_fee = coalesce(first_fee, ?) WHERE number = ?",
                (transaction.transaction_hash, transaction.nonce, str(transaction.fee), number),
            )

    def sent(self, number: int, transaction_hash: str, now: float) -> None:
        """Note that an entry's bytes were sent; the first time counts."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE attempts SET sent_at = coalesce(sent_at, ?) WHERE transaction_hash = ?",
                (now, transaction_hash),
            )
            connection.execute("UPDATE entries SET state = 'broadcast' WHERE number = ?", (number,))

    def on_chain(
        self, number: int, state: EntryState, transaction_hash: str, found: Inclusion | None
    ) -> None:
        """Note where an entry stands on the chain."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET state = ?, transaction_hash = ?, block_number = ?,"
                " block_hash = ?, problem = NULL WHERE number = ?",
                (
                    state,
                    transaction_hash,
                    None if found is None else found.block_number,
                    None if found is None else found.block_hash,
                    number,
                ),
            )

    def put_back(self, number: int) -> EntryState:
        """Have an entry delivered again whose block is gone: with the same bytes, if any."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET block_number = NULL, block_hash = NULL, state = CASE WHEN"
                " EXISTS (SELECT 1 FROM attempts WHERE attempts.number = entries.number)"
                " THEN 'broadcast' ELSE 'queued' END WHERE number = ?",
                (number,),
            )
        return self.entry(number).state

    def failed(self, number: int, problem: str) -> None:
        """Note that an entry cannot be delivered, and why."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET state = 'failed', problem = ? WHERE number = ?",
                (problem, number),
            )

    def retry_failed(self) -> int:
        """Queue failed entries again, and let the fees of all that wait start over."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET first_fee = NULL WHERE state NOT IN"
                " ('mined', 'confirmed', 'final')"
            )
            cursor = connection.execute(
                "UPDATE entries SET state = 'queued', nonce = NULL, problem = NULL"
                " WHERE state = 'failed'"
            )
        return cursor.rowcount

    def fillers(self) -> tuple[Attempt, ...]:
        """Return all transactions that were signed to use up a nonce, oldest first."""
        with self._lock:
            return self._attempts("number IS NULL", ())

    def signed_filler(self, transaction: SignedTransaction) -> None:
        """Keep a transaction that uses up a nonce."""
        with self._writing():
            self._keep(None, transaction)

    def bytes_for(self, nonce: int) -> SignedTransaction | None:
        """Return the last bytes that were signed with a nonce."""
        with self._lock:
            found = self._attempts("nonce = ?", (nonce,))
        return found[-1].transaction if found else None

    def _keep(self, number: int | None, transaction: SignedTransaction) -> None:
        self._connection.execute(
            "INSERT INTO attempts (number, raw, transaction_hash, nonce, fee, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                number,
                transaction.raw,
                transaction.transaction_hash,
                transaction.nonce,
                # A fee is not bounded by what SQLite calls an integer.
                str(transaction.fee),
                transaction.expires_at,
            ),
        )

    def _attempts(self, where: str, values: tuple[Any, ...]) -> tuple[Attempt, ...]:
        rows = self._connection.execute(f"{_ATTEMPTS} WHERE {where} ORDER BY sequence", values)
        return tuple(
            Attempt(SignedTransaction(raw, hash_, nonce, int(fee), expires_at), sent_at)
            for raw, hash_, nonce, fee, expires_at, sent_at in rows
        )

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        number, kind, payload, state, nonce, first_fee, hash_, block, block_hash, problem = row
        return Entry(
            number=number,
            call=from_payload(kind, payload),
            state=state,
            attempts=self._attempts("number = ?", (number,)),
            nonce=nonce,
            first_fee=None if first_fee is None else int(first_fee),
            transaction_hash=hash_,
            block_number=block,
            block_hash=block_hash,
            problem=problem,
        )

    def _migrate(self, path: Path) -> None:
        with self._writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise ChainError(
                    f"{path} was written by a later version of this package (format {version})",
                    hint="Deliver it with that version.",
                )
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")} - {
                "sqlite_sequence"
            }
            has_entries = "entries" in tables
            if (version == 0 and tables and not has_entries) or (
                version == _VERSION and not {"entries", "attempts"} <= tables
            ):
                raise ChainError(
                    f"{path} is a database of another kind, and no outbox",
                    hint="Use another file.",
                )
            if version == _VERSION:
                return
            if has_entries:
                connection.execute("ALTER TABLE entries RENAME TO first_entries")
            script = _SCHEMA + (_MIGRATION if has_entries else "")
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, writing(self._connection):
            yield self._connection
