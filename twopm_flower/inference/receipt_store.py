"""The receipts that a service signed: durable before an answer leaves, until they are anchored.

One SQLite file, which all worker processes and the process that anchors write to. What a
requester has used of its budget is counted from the receipts themselves.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twopm_flower.chain.sqlite_writing import open_to_write, writing
from twopm_flower.errors import ChainError, ConfigError, InferenceError
from twopm_flower.records.inference import Anchoring, PredictionReceipt, QueryBudget
from twopm_flower.records.statements import Signed, signed_type

MOST_IN_A_BATCH: Final = 1024
"""A proof takes the whole tree of a batch, and storing a batch keeps other writers out."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS receipts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL, requester TEXT NOT NULL, digest TEXT NOT NULL UNIQUE,
    rows INTEGER NOT NULL, issued_at INTEGER NOT NULL, signed BLOB NOT NULL, batch INTEGER,
    UNIQUE (request, requester)
);
CREATE INDEX IF NOT EXISTS of_requester ON receipts (requester, issued_at);
CREATE INDEX IF NOT EXISTS of_batch ON receipts (batch);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer TEXT NOT NULL, root TEXT NOT NULL, count INTEGER NOT NULL,
    transaction_hash TEXT, block_number INTEGER
);
"""


@dataclass(frozen=True)
class Batch:
    """Receipts that are anchored together.

    Attributes
    ----------
    number : int
    issuer : str
    root : str
        Merkle root over the receipts.
    count : int
    transaction_hash : str or None
    block_number : int or None
        Where it is anchored; None as long as it is not.
    """

    number: int
    issuer: str
    root: str
    count: int
    transaction_hash: str | None
    block_number: int | None


class ReceiptStore:
    """Receipts by what they answer, and the batches that they are anchored in.

    Parameters
    ----------
    path : Path
        The file; it is made where there is none.

    Raises
    ------
    ConfigError
        The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        # SQLite gives its other files the mode that this one has when it makes them.
        with contextlib.suppress(OSError):
            path.touch(mode=0o600)
        try:
            self._connection = open_to_write(path, "a store of receipts")
        except ChainError as error:
            raise ConfigError(error.message, hint=error.hint) from error
        try:
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._connection.close()
            raise ConfigError(
                f"{path} cannot be used as a store of receipts: {error}",
                hint="Take the file from a backup, or use another one.",
            ) from error
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        # SQLite reads freed memory if this is done while another thread asks something.
        with self._lock:
            self._connection.close()

    def find(self, request_digest: str, requester: str) -> Signed[PredictionReceipt] | None:
        """Return the receipt of a request that was answered before, or None."""
        with self._lock:
            return self._find(request_digest, requester)

    def wait_for_budget(
        self, budget: QueryBudget | None, requester: str, rows: int, now: int
    ) -> int:
        """Return for how many seconds a requester has to wait until so many rows are left to it."""
        with self._lock:
            return self._wait(budget, requester, rows, now)

    def keep(
        self,
        receipt: Signed[PredictionReceipt],
        digest: str,
        budget: QueryBudget | None,
    ) -> tuple[Signed[PredictionReceipt], int]:
        """Store a receipt, unless its request has one already or the budget is used up.

        Returns
        -------
        Signed[PredictionReceipt]
            The receipt that counts for the request: this one, or an earlier one.
        int
            For how many seconds the requester has to wait; where it is not 0, nothing was stored.
        """
        said = receipt.statement
        with self._lock, writing(self._connection):
            known = self._find(said.request_digest, said.requester)
            if known is not None:
                return known, 0
            wait_s = self._wait(budget, said.requester, said.rows, said.issued_at)
            if wait_s:
                return receipt, wait_s
            self._connection.execute(
                "INSERT INTO receipts (request, requester, digest, rows, issued_at, signed)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    said.request_digest,
                    said.requester,
                    digest,
                    said.rows,
                    said.issued_at,
                    receipt.to_bytes(),
                ),
            )
        return receipt, 0

    def unanchored(self) -> int:
        """Return how many receipts are not anchored."""
        with self._lock:
            (count,) = self._connection.execute(
                "SELECT count(*) FROM receipts LEFT JOIN batches ON batches.number = batch"
                " WHERE block_number IS NULL"
            ).fetchone()
        return int(count)

    def without_batch(self, most: int = MOST_IN_A_BATCH) -> list[tuple[int, str]]:
        """Return numbers and digests of receipts in no batch, the oldest first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT number, digest FROM receipts WHERE batch IS NULL ORDER BY number LIMIT ?",
                (most,),
            ).fetchall()
        return [(int(number), str(digest)) for number, digest in found]

    def add_batch(self, issuer: str, root: str, numbers: Sequence[int]) -> None:
        """Store a batch of receipts, before anything of it is sent to the chain.

        Raises
        ------
        InferenceError
            One of them is in a batch already: another service of this home anchors them, too.
        """
        with self._lock, writing(self._connection):
            batch = self._connection.execute(
                "INSERT INTO batches (issuer, root, count) VALUES (?, ?, ?)",
                (issuer, root, len(numbers)),
            ).lastrowid
            taken = self._connection.executemany(
                "UPDATE receipts SET batch = ? WHERE number = ? AND batch IS NULL",
                [(batch, number) for number in numbers],
            ).rowcount
            if taken != len(numbers):
                raise InferenceError(
                    f"{len(numbers) - taken} of {len(numbers)} receipts are in another batch",
                    hint="Another service of this home anchors them; nothing is lost.",
                )

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not known to be anchored, the oldest first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT number, issuer, root, count, transaction_hash, block_number FROM batches"
                " WHERE block_number IS NULL ORDER BY number"
            ).fetchall()
        return [Batch(*row) for row in found]

    def set_anchored(self, batch: Batch, transaction_hash: str, block_number: int) -> None:
        """Note where a batch is anchored."""
        with self._lock, writing(self._connection):
            self._connection.execute(
                "UPDATE batches SET transaction_hash = ?, block_number = ? WHERE number = ?",
                (transaction_hash, block_number, batch.number),
            )

    def batch_of(self, digest: str) -> tuple[bool, Batch | None]:
        """Return whether a receipt is known, and its batch if it is in one."""
        with self._lock:
            row = self._connection.execute(
                "SELECT batches.number, issuer, root, count, transaction_hash, block_number"
                " FROM receipts LEFT JOIN batches ON batches.number = batch"
                " WHERE receipts.digest = ?",
                (digest,),
            ).fetchone()
        return row is not None, None if row is None or row[0] is None else Batch(*row)

    def digests_in(self, batch: Batch) -> list[str]:
        """Return the digests of the receipts of a batch."""
        with self._lock:
            found = self._connection.execute(
                "SELECT digest FROM receipts WHERE batch = ? ORDER BY number", (batch.number,)
            ).fetchall()
        return [str(digest) for (digest,) in found]

    def _find(self, request_digest: str, requester: str) -> Signed[PredictionReceipt] | None:
        row = self._connection.execute(
            "SELECT signed FROM receipts WHERE request = ? AND requester = ?",
            (request_digest, requester),
        ).fetchone()
        return None if row is None else signed_type(PredictionReceipt).from_bytes(row[0])

    def _wait(self, budget: QueryBudget | None, requester: str, rows: int, now: int) -> int:
        if budget is None:
            return 0
        since = now - budget.period_s
        (total,) = self._connection.execute(
            "SELECT coalesce(sum(rows), 0) FROM receipts WHERE requester = ? AND issued_at > ?",
            (requester, since),
        ).fetchone()
        over = int(total) + rows - budget.rows
        if over <= 0:
            return 0
        used = self._connection.execute(
            "SELECT issued_at, rows FROM receipts WHERE requester = ? AND issued_at > ?"
            " ORDER BY issued_at",
            (requester, since),
        )
        for issued_at, count in used:
            over -= count
            if over <= 0:
                return max(1, int(issued_at) + budget.period_s - now)
        # More rows than a whole period allows: no waiting helps, and the reason says so.
        return budget.period_s


def anchoring_of(batch: Batch, proof: Sequence[bytes]) -> Anchoring | None:
    """Return where a receipt's batch is anchored, or None as long as it is not."""
    if batch.transaction_hash is None or batch.block_number is None:
        return None
    return Anchoring(
        issuer=batch.issuer,
        root=batch.root,
        count=batch.count,
        proof=tuple("0x" + sibling.hex() for sibling in proof),
        transaction_hash=batch.transaction_hash,
        block_number=batch.block_number,
    )
