"""Databases of ours: a transaction is kept whole, whatever happens, or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twopm_flower.errors import ChainError


def open_to_write(path: Path, what: str) -> sqlite3.Connection:
    """Open a database, or make an empty one; several threads and processes may write to it.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it is to be, for the message: ``"an outbox"``.

    Raises
    ------
    ChainError
        It is no database, or cannot be written.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise ChainError(
            f"{path} cannot be used as {what}: {error}",
            hint="Take the file from a backup, or use another one.",
        ) from error
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Make all writes of a block inside one transaction, which keeps other writers out.

    Parameters
    ----------
    connection : sqlite3.Connection
        Opened with ``isolation_level=None``, so that it begins no transaction by itself.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures, such as a full disk, have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
