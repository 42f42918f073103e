"""The local Solana chain's database: accounts as they are now, and all blocks and transactions."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from twopm_flower.chain.sqlite_writing import writing
from twopm_flower.errors import ChainError

SCHEMA_VERSION = "solana-1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
    key BLOB PRIMARY KEY, lamports TEXT NOT NULL, owner BLOB NOT NULL, data BLOB NOT NULL,
    executable INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
    slot INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, previous TEXT NOT NULL,
    time INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS transactions (
    signature TEXT PRIMARY KEY, slot INTEGER NOT NULL, raw BLOB NOT NULL, meta TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS transactions_slot ON transactions (slot);
CREATE TABLE IF NOT EXISTS mentions (
    account BLOB NOT NULL, slot INTEGER NOT NULL, signature TEXT NOT NULL,
    PRIMARY KEY (account, slot, signature)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class StoredAccount:
    """An account: its balance in lamports, the program that owns it, and its bytes."""

    key: bytes
    lamports: int
    owner: bytes
    data: bytes
    executable: bool


@dataclass(frozen=True)
class Block:
    """A block: its slot, its hash and its parent's in base58, and its time in seconds."""

    slot: int
    hash: str
    previous: str
    time: int


@dataclass(frozen=True)
class StoredTransaction:
    """A transaction in a block; `meta` is JSON, as an endpoint answers it."""

    signature: str
    slot: int
    raw: bytes
    meta: str


class SolanaStore:
    """One SQLite database in write-ahead mode.

    Parameters
    ----------
    path : Path
        The database file.
    read_only : bool
        Open what is there and write nothing.

    Raises
    ------
    ChainError
        There is nothing to read, or another program or version made it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.is_file():
            raise ChainError(
                f"there is no local Solana chain at {path.parent}",
                hint="Start it once, or point at the folder where it runs.",
            )
        self._connection = _open_read_only(path) if read_only else _open(path)
        try:
            version = self.meta("schema")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ChainError(f"{path} is not a local Solana chain: {error}") from error
        if version != SCHEMA_VERSION:
            self._connection.close()
            raise ChainError(
                f"{path} has schema {version}, this version reads {SCHEMA_VERSION}",
                hint="Use the version of twopm-flower that made it, or another folder.",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make all writes inside one transaction: after a crash, all of them or none."""
        with writing(self._connection):
            yield

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def meta(self, name: str) -> str | None:
        """Return a named value, or None."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Set a named value."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def account(self, key: bytes) -> StoredAccount | None:
        """Return an account, or None."""
        row = self._connection.execute(
            "SELECT key, lamports, owner, data, executable FROM accounts WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else _account(row)

    def accounts(self) -> Iterator[StoredAccount]:
        """Return all accounts."""
        query = "SELECT key, lamports, owner, data, executable FROM accounts"
        return (_account(row) for row in self._connection.execute(query))

    def set_account(self, account: StoredAccount) -> None:
        """Store an account in place of what it was; one without lamports is gone."""
        if account.lamports == 0:
            self._connection.execute("DELETE FROM accounts WHERE key = ?", (account.key,))
            return
        # Lamports have 64 bits, SQLite's integers 63 and a sign.
        values = (
            account.key,
            str(account.lamports),
            account.owner,
            account.data,
            int(account.executable),
        )
        self._connection.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?)", values)

    def add_block(self, block: Block) -> None:
        """Append a block."""
        values = (block.slot, block.hash, block.previous, block.time)
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", values)

    def head(self) -> Block | None:
        """Return the latest block, or None before the first."""
        return self._block("SELECT * FROM blocks ORDER BY slot DESC LIMIT 1")

    def block(self, slot: int) -> Block | None:
        """Return a block by its slot, or None."""
        return self._block("SELECT * FROM blocks WHERE slot = ?", slot)

    def block_by_hash(self, digest: str) -> Block | None:
        """Return a block by its hash in base58, or None."""
        return self._block("SELECT * FROM blocks WHERE hash = ?", digest)

    def slots(self, first: int, last: int, limit: int) -> list[int]:
        """Return the slots in a range, both ends included, that hold a block."""
        rows = self._connection.execute(
            "SELECT slot FROM blocks WHERE slot BETWEEN ? AND ? ORDER BY slot LIMIT ?",
            (first, last, limit),
        )
        return [int(slot) for (slot,) in rows]

    def add_transaction(self, transaction: StoredTransaction, mentioned: Sequence[bytes]) -> None:
        """Store a transaction and index it under the accounts that it mentions."""
        values = (transaction.signature, transaction.slot, transaction.raw, transaction.meta)
        self._connection.execute("INSERT INTO transactions VALUES (?, ?, ?, ?)", values)
        self._connection.executemany(
            "INSERT INTO mentions VALUES (?, ?, ?)",
            [(account, transaction.slot, transaction.signature) for account in set(mentioned)],
        )

    def transaction(self, signature: str) -> StoredTransaction | None:
        """Return a transaction by its first signature in base58, or None."""
        row = self._connection.execute(
            "SELECT signature, slot, raw, meta FROM transactions WHERE signature = ?", (signature,)
        ).fetchone()
        return None if row is None else _transaction(row)

    def signatures_of(self, slot: int) -> list[str]:
        """Return the signatures of a block's transactions."""
        rows = self._connection.execute(
            "SELECT signature FROM transactions WHERE slot = ? ORDER BY signature", (slot,)
        )
        return [str(signature) for (signature,) in rows]

    def mentioning(
        self, account: bytes, *, before: int | None, until: int, limit: int
    ) -> list[StoredTransaction]:
        """Return the newest transactions that mention an account, newest first.

        Only those in slots before `before` and after `until`; a slot holds one transaction.
        """
        rows = self._connection.execute(
            "SELECT t.signature, t.slot, t.raw, t.meta FROM mentions m"
            " JOIN transactions t ON t.signature = m.signature"
            " WHERE m.account = ? AND m.slot < ? AND m.slot > ? ORDER BY m.slot DESC LIMIT ?",
            (account, 2**62 if before is None else before, until, limit),
        )
        return [_transaction(row) for row in rows]

    def _block(self, query: str, *values: int | str) -> Block | None:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else Block(int(row[0]), str(row[1]), str(row[2]), int(row[3]))


def _account(row: tuple[bytes, str, bytes, bytes, int]) -> StoredAccount:
    key, lamports, owner, data, executable = row
    return StoredAccount(key, int(lamports), owner, data, bool(executable))


def _transaction(row: tuple[str, int, bytes, str]) -> StoredTransaction:
    return StoredTransaction(*row)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # A block survives a power cut, not only a crash: somebody was told that it is final.
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(_SCHEMA)
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (SCHEMA_VERSION,))
    return connection


def _open_read_only(path: Path) -> sqlite3.Connection:
    # Without a write-ahead log beside it the file is whole and can be read even where SQLite
    # may not create its shared-memory file, as on a read-only medium.
    log = path.with_name(path.name + "-wal")
    mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?{mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
