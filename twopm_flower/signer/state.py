"""What a signer has to remember across restarts: nonces, rates, fees, and its log's length."""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twopm_flower.errors import ConfigError, SignerError, SignerRefused
from twopm_flower.signer.audit import Head
from twopm_flower.signer.policy import Limits
from twopm_flower.signer.transaction import BUMP_PERCENT, Transaction

MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
_PAYLOAD: Final = frozenset({"to", "value", "data", "gas"})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS signed (
    digest TEXT PRIMARY KEY, chain_id INTEGER NOT NULL, account TEXT NOT NULL,
    nonce TEXT NOT NULL, fields TEXT NOT NULL, fee TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_nonce ON signed (chain_id, account, nonce);
CREATE INDEX IF NOT EXISTS by_time ON signed (account, at);
CREATE TABLE IF NOT EXISTS signatures (kind TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_kind ON signatures (kind, at);
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1),
    count INTEGER NOT NULL, digest TEXT NOT NULL);
"""


class SignerState:
    """A sqlite file that one process uses at a time.

    What is written inside :meth:`writing` is on disk when that ends. A clock that goes back
    makes the limits stricter, not looser: what lies in the future counts as recent.

    Parameters
    ----------
    path : Path
        Created with mode 0600.

    Raises
    ------
    ConfigError
        It cannot be opened, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError(
                f"the signer's state {path} cannot be opened: {error.strerror}"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(
                f"another signer uses the state {path}",
                hint="One key has one signer: end the other one, or name another --state.",
            ) from None
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit is on disk before it returns, power cuts included.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise ConfigError(f"{path} is no state of a signer: {error}") from error

    def close(self) -> None:
        """Let another process use it."""
        self._database.close()
        os.close(self._lock)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write all that happens inside, or nothing.

        Raises
        ------
        SignerError
            The disk is full or broken.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise SignerError(f"the signer's state cannot be written: {error}") from error
        try:
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise SignerError(f"the signer's state cannot be written: {error}") from error
        except BaseException:
            self._rollback()
            raise

    def head(self) -> Head:
        """Return how far the audit log is."""
        row = self._database.execute("SELECT count, digest FROM head").fetchone()
        return Head() if row is None else Head(*row)

    def set_head(self, head: Head) -> None:
        """Remember how far the audit log is."""
        self._database.execute(
            "INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (head.count, head.digest)
        )

    def reserve(
        self, transaction: Transaction, account: str, limits: Limits, *, now: float
    ) -> bool:
        """Give a nonce to a transaction, for good; return whether it is a new one.

        A transaction that was signed before may be signed again: it takes effect once.

        Raises
        ------
        SignerRefused
            The nonce belongs to another transaction and this is no fee bump of it; or too many
            transactions, or too high fees, in too short a time.
        """
        digest = transaction.signing_hash.hex()
        if self._database.execute("SELECT 1 FROM signed WHERE digest = ?", (digest,)).fetchone():
            return False
        place = (transaction.chain_id, account, str(transaction.nonce))
        before = self._database.execute(
            "SELECT fields FROM signed WHERE chain_id = ? AND account = ? AND nonce = ?"
            " ORDER BY rowid DESC",
            place,
        ).fetchall()
        for (known,) in before:
            _require_bump(transaction, Transaction.from_fields(json.loads(known)))
        self.count("transaction", limits, now=now)
        self._require_fees(transaction, account, limits, now)
        self._database.execute(
            "INSERT INTO signed VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                digest,
                *place,
                json.dumps(transaction.to_fields()),
                str(transaction.max_fee),
                now,
            ),
        )
        return True

    def count(self, kind: str, limits: Limits, *, now: float) -> None:
        """Count a ``transaction`` or a ``statement``.

        Raises
        ------
        SignerRefused
            There were as many in this time as the policy allows.
        """
        bounds = (
            [
                ("minute", MINUTE_S, limits.transactions_per_minute),
                ("hour", HOUR_S, limits.transactions_per_hour),
            ]
            if kind == "transaction"
            else [("minute", MINUTE_S, limits.statements_per_minute)]
        )
        for name, seconds, most in bounds:
            (done,) = self._database.execute(
                "SELECT count(*) FROM signatures WHERE kind = ? AND at > ?", (kind, now - seconds)
            ).fetchone()
            if done >= most:
                raise SignerRefused(f"{done} {kind}s in one {name}; at most {most} are allowed")
        self._database.execute("DELETE FROM signatures WHERE at < ?", (now - DAY_S,))
        self._database.execute("INSERT INTO signatures VALUES (?, ?)", (kind, now))

    def _require_fees(
        self, transaction: Transaction, account: str, limits: Limits, now: float
    ) -> None:
        # Of the transactions with one nonce one is mined: the dearest stands for all of them.
        dearest: dict[tuple[int, str], int] = {}
        for chain_id, nonce, fee in self._database.execute(
            "SELECT chain_id, nonce, fee FROM signed WHERE account = ? AND at > ?",
            (account, now - DAY_S),
        ):
            dearest[chain_id, nonce] = max(dearest.get((chain_id, nonce), 0), int(fee))
        dearest[transaction.chain_id, str(transaction.nonce)] = transaction.max_fee
        total = sum(dearest.values())
        if total > limits.max_fee_per_day_wei:
            raise SignerRefused(
                f"the fees of one day could come to {total} wei; at most "
                f"{limits.max_fee_per_day_wei} are allowed"
            )

    def _rollback(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")


def read_head(path: Path) -> Head:
    """Return how far a signer's state says that its log is, while the signer may run.

    Raises
    ------
    ConfigError
        Not the state of a signer.
    """
    try:
        # A URI, so that nothing is created where the file is missing.
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            row = database.execute("SELECT count, digest FROM head").fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise ConfigError(f"{path} is no state of a signer: {error}") from error
    return Head() if row is None else Head(*row)


def _require_bump(transaction: Transaction, signed: Transaction) -> None:
    place = f"nonce {signed.nonce} on chain {signed.chain_id}"
    if not transaction.differences(signed).isdisjoint(_PAYLOAD):
        raise SignerRefused(
            f"another transaction was signed for {place}; only its fees may be raised",
            signed=signed.to_fields(),
        )
    if not transaction.outbids(signed):
        raise SignerRefused(
            f"a transaction was signed for {place}: to replace it both fees have to be at least "
            f"{BUMP_PERCENT} % above {signed.max_fee_per_gas} and "
            f"{signed.max_priority_fee_per_gas} wei",
            signed=signed.to_fields(),
        )
