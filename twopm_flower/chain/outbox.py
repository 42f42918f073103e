"""A durable queue of what has yet to reach the chain: nothing is lost, nothing sent twice.

An entry goes queued -> broadcast -> mined. The signed bytes are stored before they are sent
for the first time, so whoever comes after a crash sends the same bytes again; and whether the
chain holds the record already is asked before anything is signed. An entry that the chain
refuses, or that conflicts with what it holds, becomes failed and holds back its task.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from twopm_flower.chain.base import (
    FinaliseCall,
    FinalRound,
    Receipt,
    RoundCall,
    SignedTransaction,
)
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.chain.sqlite_writing import writing
from twopm_flower.errors import ChainError, ChainUnavailable, RecordConflict, TransactionReverted

EntryState = Literal["queued", "broadcast", "mined", "failed"]

MAX_SIGNATURES = 5
"""How often an entry is signed anew in one delivery, when its nonce is taken each time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, task_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    payload TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
    raw BLOB, transaction_hash TEXT, problem TEXT,
    UNIQUE (kind, task_id, round, attempt)
);
"""
_ALL = "SELECT number, kind, payload, state, raw, transaction_hash, problem FROM entries"


class Delivery(Protocol):
    """The part of a ChainConnector that an outbox needs."""

    def already_done(self, call: RoundCall | FinaliseCall) -> str | None:
        """Return the hash of the transaction that did this, or None."""
        ...

    def sign_call(self, call: RoundCall | FinaliseCall) -> SignedTransaction:
        """Sign without sending."""
        ...

    def broadcast(self, transaction: SignedTransaction) -> bool:
        """Send, or send again; False when it can never be mined."""
        ...

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until a transaction is mined."""
        ...


@dataclass(frozen=True)
class Entry:
    """One thing to be delivered.

    Attributes
    ----------
    number : int
        Its place in the order of delivery.
    call : RoundCall or FinaliseCall
        What is to be done.
    state : {"queued", "broadcast", "mined", "failed"}
        How far it got.
    transaction : SignedTransaction or None
        The bytes that were signed for it.
    transaction_hash : str or None
        The transaction that was sent for it, or that was found to have done it.
    problem : str or None
        Why it failed.
    """

    number: int
    call: RoundCall | FinaliseCall
    state: EntryState
    transaction: SignedTransaction | None
    transaction_hash: str | None
    problem: str | None


class Outbox:
    """A queue in a SQLite file.

    Any thread or process may queue; one process at a time delivers.

    Parameters
    ----------
    path : Path
        The file; its folder is created.
    observe : callable, optional
        Called with the name of each step that was just taken (``queued``, ``signed``,
        ``stored``, ``sent``, ``mined``, ``done``) and the entry's number.
    """

    def __init__(self, path: Path, *, observe: Callable[[str, int], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._observe = observe or (lambda _step, _number: None)
        self._lock = threading.RLock()
        self._delivering = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What was queued survives a power cut: the caller goes on as if it were recorded.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def enqueue(self, call: RoundCall | FinaliseCall) -> int:
        """Queue a record of a round, or the end of a task.

        Queueing the same again is no error and does nothing.

        Parameters
        ----------
        call : RoundCall or FinaliseCall
            What is to be done.

        Returns
        -------
        int
            The entry's number.

        Raises
        ------
        ChainError
            A digest or signature is malformed, so it could never be delivered.
        RecordConflict
            Something else is queued, or was delivered, for this round and attempt, or as the
            end of this task.
        """
        key, payload = _key(call), _payload(call)
        with self._writing():
            row = self._connection.execute(
                "SELECT number, payload FROM entries"
                " WHERE kind = ? AND task_id = ? AND round = ? AND attempt = ?",
                key,
            ).fetchone()
            if row is not None:
                if row[1] != payload:
                    raise RecordConflict(
                        f"another {key[0]} of task {key[1]}, round {key[2]}, attempt {key[3]},"
                        " is in the outbox",
                        hint="A round that is repeated needs a new attempt number.",
                    )
                return int(row[0])
            cursor = self._connection.execute(
                "INSERT INTO entries (kind, task_id, round, attempt, payload)"
                " VALUES (?, ?, ?, ?, ?)",
                (*key, payload),
            )
        number = int(cursor.lastrowid or 0)
        self._observe("queued", number)
        return number

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries in order, delivered ones included."""
        return self._select(_ALL + " ORDER BY number")

    def pending(self) -> tuple[Entry, ...]:
        """Return the entries that the chain does not hold yet, failed ones included."""
        return self._select(_ALL + " WHERE state != 'mined' ORDER BY number")

    def retry_failed(self) -> int:
        """Put failed entries back into the queue and return how many there were."""
        with self._writing():
            cursor = self._connection.execute(
                "UPDATE entries SET state = 'queued', raw = NULL, transaction_hash = NULL,"
                " problem = NULL WHERE state = 'failed'"
            )
        return cursor.rowcount

    def deliver(self, connector: Delivery, *, receipt_timeout_s: float | None = None) -> int:
        """Send what is pending, in order, and wait until it is mined.

        Parameters
        ----------
        connector : ChainConnector
            The chain.
        receipt_timeout_s : float, optional
            How long to wait for each receipt, in seconds; the connector's own limit otherwise.

        Returns
        -------
        int
            How many entries were delivered.

        Raises
        ------
        ChainUnavailable
            Nobody answers, or another process is delivering; call again later.
        TransactionReverted, RecordConflict
            An entry failed. Its task is held back from now on, other tasks are not.
        """
        with self._delivering:
            lock = self._delivery_lock()
            try:
                return self._deliver(connector, receipt_timeout_s)
            finally:
                lock.release()

    def _delivery_lock(self) -> ProcessLock:
        path = self._path.with_name(self._path.name + ".lock")
        try:
            return ProcessLock(path, owner="delivery of the outbox")
        except ChainError as error:
            raise ChainUnavailable(str(error)) from error

    def _deliver(self, connector: Delivery, receipt_timeout_s: float | None) -> int:
        pending = self.pending()
        held_back = {entry.call.task_id for entry in pending if entry.state == "failed"}
        delivered = 0
        for entry in pending:
            if entry.call.task_id in held_back:
                continue
            try:
                self._deliver_one(entry, connector, receipt_timeout_s)
            except (TransactionReverted, RecordConflict) as error:
                self._update(entry.number, "failed", None, entry.transaction_hash, str(error))
                raise
            delivered += 1
        return delivered

    def _deliver_one(self, entry: Entry, connector: Delivery, timeout_s: float | None) -> None:
        # Asked first, because an earlier life may have been cut off just after sending.
        done = connector.already_done(entry.call)
        if done is None:
            sent = self._send(entry, connector)
            try:
                connector.wait(sent, timeout_s=timeout_s)
            except TransactionReverted:
                # Mined without effect: either somebody was faster with the same, or it failed.
                done = connector.already_done(entry.call)
                if done is None:
                    raise
            else:
                done = sent
        self._observe("mined", entry.number)
        self._update(entry.number, "mined", None, done, None)
        self._observe("done", entry.number)

    def _send(self, entry: Entry, connector: Delivery) -> str:
        transaction = entry.transaction
        for _ in range(MAX_SIGNATURES):
            if transaction is None:
                transaction = connector.sign_call(entry.call)
                self._observe("signed", entry.number)
                self._update(
                    entry.number, "broadcast", transaction.raw, transaction.transaction_hash, None
                )
                self._observe("stored", entry.number)
            if connector.broadcast(transaction):
                self._observe("sent", entry.number)
                return transaction.transaction_hash
            # Its nonce went to another transaction: these bytes can never be mined.
            transaction = None
        raise ChainError(f"outbox entry {entry.number}: its nonce was taken {MAX_SIGNATURES} times")

    def _update(
        self,
        number: int,
        state: EntryState,
        raw: bytes | None,
        transaction_hash: str | None,
        problem: str | None,
    ) -> None:
        with self._writing():
            self._connection.execute(
                "UPDATE entries SET state = ?, raw = ?, transaction_hash = ?, problem = ?"
                " WHERE number = ?",
                (state, raw, transaction_hash, problem, number),
            )

    def _select(self, query: str) -> tuple[Entry, ...]:
        with self._lock:
            rows = self._connection.execute(query).fetchall()
        return tuple(_entry(row) for row in rows)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, writing(self._connection):
            yield


def _key(call: RoundCall | FinaliseCall) -> tuple[str, str, int, int]:
    if isinstance(call, RoundCall):
        return "round", call.task_id, call.round, call.attempt
    return "finalisation", call.task_id, 0, 0


def _payload(call: RoundCall | FinaliseCall) -> str:
    return json.dumps(asdict(call), sort_keys=True)


def _entry(row: tuple[Any, ...]) -> Entry:
    number, kind, payload, state, raw, transaction_hash, problem = row
    values: dict[str, Any] = json.loads(payload)
    call: RoundCall | FinaliseCall
    if kind == "round":
        call = RoundCall(**values)
    else:
        call = FinaliseCall(**{**values, "last": FinalRound(**values["last"])})
    transaction = None
    if raw is not None:
        transaction = SignedTransaction(raw=raw, transaction_hash=transaction_hash)
    return Entry(number, call, state, transaction, transaction_hash, problem)
