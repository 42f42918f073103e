"""A ledger's file: genesis and entries in their canonical bytes, and nothing that follows."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from twopm_flower.chain.ledger_records import Entry, Genesis
from twopm_flower.chain.sqlite_writing import writing
from twopm_flower.errors import ChainError, RecordError

FILE_NAME = "ledger.sqlite"
MAX_PAGE_ENTRIES = 500
MAX_PAGE_BYTES = 1024 * 1024
_PAGE = "SELECT body FROM entries WHERE number >= ? ORDER BY number LIMIT ?"
R = TypeVar("R", Genesis, Entry)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS genesis (body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


class LedgerStore:
    """One SQLite database in write-ahead mode, which several threads may share.

    Parameters
    ----------
    folder : Path
        The ledger's folder.
    read_only : bool
        Open what is there and write nothing, not even a journal.

    Raises
    ------
    ChainError
        There is nothing to read, or another program made it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        if read_only and not self._path.is_file():
            raise ChainError(
                f"there is no ledger at {folder}",
                hint="Start it once, or point at the folder that holds ledger.sqlite.",
            )
        self._connection = _open_read_only(self._path) if read_only else _open(self._path)
        try:
            self._connection.execute("SELECT count(*) FROM genesis").fetchone()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise _not_a_ledger(self._path, error) from error

    def close(self) -> None:
        """Close the database; write-ahead pages move into the main file."""
        with self._lock:
            self._connection.close()

    def genesis(self) -> Genesis | None:
        """Return the genesis, or None before there is one."""
        with self._reading() as read:
            rows = read("SELECT body FROM genesis")
        return self._record(Genesis, rows[0][0]) if rows else None

    def set_genesis(self, genesis: Genesis) -> None:
        """Make a new ledger."""
        with self._lock:
            self._connection.execute("INSERT INTO genesis VALUES (?)", (genesis.to_bytes(),))

    def append(self, entry: Entry) -> None:
        """Keep an entry, so that it survives a power cut."""
        with self._lock, writing(self._connection):
            self._connection.execute(
                "INSERT INTO entries VALUES (?, ?)", (entry.number, entry.to_bytes())
            )

    def page(self, first: int, limit: int = MAX_PAGE_ENTRIES) -> tuple[int, list[bytes]]:
        """Return the number of the last entry, and entries from a number on.

        As many as fit a page, and at least one if there is one; both at the same moment.
        """
        found: list[bytes] = []
        size = 0
        with self._reading() as read:
            head = int(read("SELECT coalesce(max(number), 0) FROM entries")[0][0])
            rows = read(_PAGE, first, max(0, min(limit, MAX_PAGE_ENTRIES)))
        for (body,) in rows:
            size += len(body)
            if found and size > MAX_PAGE_BYTES:
                break
            found.append(body)
        return head, found

    def entries(self, first: int) -> tuple[int, list[Entry]]:
        """Return a page of entries, parsed; see :meth:`page`.

        Raises
        ------
        ChainError
            A stored entry cannot be read.
        """
        head, page = self.page(first)
        return head, [self._record(Entry, body) for body in page]

    @contextmanager
    def _reading(self) -> Iterator[Callable[..., list[Any]]]:
        """Read inside one snapshot, whatever another process writes meanwhile."""
        try:
            with self._lock:
                self._connection.execute("BEGIN")
                try:
                    yield lambda query, *values: self._connection.execute(query, values).fetchall()
                finally:
                    self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _record(self, kind: type[R], body: Any) -> R:
        if not isinstance(body, bytes):
            raise self._damaged("an entry is not stored as bytes")
        try:
            return kind.from_bytes(body)
        except RecordError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, how: str) -> ChainError:
        return ChainError(
            f"{self._path} is damaged: {how}",
            hint="Take the file from a backup, or from another member.",
        )


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # Somebody was told that an entry stands: it survives a power cut, not only a crash.
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _not_a_ledger(path, error) from error
    return connection


def _not_a_ledger(path: Path, error: sqlite3.DatabaseError) -> ChainError:
    return ChainError(
        f"{path} is not a ledger: {error}", hint="Point at the folder that a ledger is kept in."
    )


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
