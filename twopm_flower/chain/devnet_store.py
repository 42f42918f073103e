"""The embedded chain's database: the state trie, and an index of transactions and logs."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eth.db.backends.base import BaseDB

from twopm_flower.chain.sqlite_writing import writing
from twopm_flower.errors import ChainError

SCHEMA_VERSION = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trie (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transactions (
    hash TEXT PRIMARY KEY, block INTEGER NOT NULL, body TEXT NOT NULL, receipt TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS transactions_block ON transactions (block);
CREATE TABLE IF NOT EXISTS logs (
    block INTEGER NOT NULL, position INTEGER NOT NULL, address TEXT NOT NULL,
    topic0 TEXT, topic1 TEXT, body TEXT NOT NULL, PRIMARY KEY (block, position)
);
CREATE INDEX IF NOT EXISTS logs_topics ON logs (address, topic0, topic1);
"""


class DevnetStore:
    """One SQLite database in write-ahead mode.

    Parameters
    ----------
    path : Path
        The database file.
    read_only : bool
        Open what is there and write nothing, not even a journal.

    Raises
    ------
    ChainError
        There is nothing to read, or another program or version made it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.is_file():
            raise ChainError(
                f"there is no embedded chain at {path.parent}",
                hint="Start it once, or point at the folder where it runs.",
            )
        self._connection = _open_read_only(path) if read_only else _open(path)
        try:
            version = self.meta("schema")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ChainError(f"{path} is not an embedded chain: {error}") from error
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

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read inside one snapshot, whatever another process writes meanwhile."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the database; write-ahead pages move into the main file."""
        self._connection.close()

    @property
    def trie(self) -> "TrieTable":
        """The key-value table under the state trie, as py-evm wants it."""
        return TrieTable(self._connection)

    def meta(self, name: str) -> str | None:
        """Return a named value, or None."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Set a named value."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def add_transaction(self, digest: str, block: int, body: str, receipt: str) -> None:
        """Index a mined transaction, with its JSON body and receipt."""
        self._connection.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, ?)", (digest, block, body, receipt)
        )

    def transaction(self, digest: str) -> str | None:
        """Return the JSON body of a mined transaction, or None."""
        return self._one("SELECT body FROM transactions WHERE hash = ?", digest)

    def receipt(self, digest: str) -> str | None:
        """Return the JSON receipt of a mined transaction, or None."""
        return self._one("SELECT receipt FROM transactions WHERE hash = ?", digest)

    def transactions_of(self, block: int) -> list[tuple[str, str]]:
        """Return (hash, JSON body) of all transactions of a block."""
        rows = self._connection.execute(
            "SELECT hash, body FROM transactions WHERE block = ?", (block,)
        )
        return [(str(digest), str(body)) for digest, body in rows]

    def add_log(
        self, block: int, position: int, address: str, topics: Sequence[str], body: str
    ) -> None:
        """Index a log under its address and first two topics."""
        first, second = (*topics[:2], None, None)[:2]
        self._connection.execute(
            "INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?)",
            (block, position, address.lower(), first, second, body),
        )

    def logs(
        self,
        first_block: int,
        last_block: int,
        addresses: Sequence[str],
        topic0: Sequence[str],
        topic1: Sequence[str],
    ) -> list[str]:
        """Return the JSON bodies of logs in order; an empty filter lets everything through."""
        query = "SELECT body FROM logs WHERE block BETWEEN ? AND ?"
        values: list[Any] = [first_block, last_block]
        lowered = [address.lower() for address in addresses]
        for column, wanted in (("address", lowered), ("topic0", topic0), ("topic1", topic1)):
            if wanted:
                marks = ",".join("?" * len(wanted))
                query += f" AND {column} IN ({marks})"
                values += wanted
        rows = self._connection.execute(query + " ORDER BY block, position", values)
        return [str(body) for (body,) in rows]

    def _one(self, query: str, value: str) -> str | None:
        row = self._connection.execute(query, (value,)).fetchone()
        return None if row is None else str(row[0])


class TrieTable(BaseDB):
    """Presents the trie table to py-evm as a mapping from bytes to bytes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getitem__(self, key: bytes) -> bytes:
        row = self._connection.execute("SELECT value FROM trie WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return bytes(row[0])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO trie VALUES (?, ?)", (key, value))

    def __delitem__(self, key: bytes) -> None:
        self._connection.execute("DELETE FROM trie WHERE key = ?", (key,))

    def _exists(self, key: bytes) -> bool:
        found = self._connection.execute("SELECT 1 FROM trie WHERE key = ?", (key,)).fetchone()
        return found is not None


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # A mined block survives a power cut, not only a crash: somebody was told that it is mined.
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
