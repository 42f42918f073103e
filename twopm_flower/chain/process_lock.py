"""A lock on a folder that one process holds, and that dies with it."""

import sqlite3
from pathlib import Path

from twopm_flower.errors import ChainError


class ProcessLock:
    """Holds a file locked until it is released or the process ends, however it ends.

    The lock is an exclusive transaction on an empty SQLite database: the operating system
    drops it with the process, and it works the same everywhere that Python does.

    Parameters
    ----------
    path : Path
        The lock file.
    owner : str
        What the holder is doing, for the message to whoever comes second.

    Raises
    ------
    ChainError
        Another process, or another object of this one, holds the lock.
    """

    def __init__(self, path: Path, *, owner: str) -> None:
        self._connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise ChainError(
                f"{path.parent} is in use by another process ({owner})",
                hint="Stop it first, or use another folder.",
            ) from error

    def release(self) -> None:
        """Let the next one in."""
        self._connection.close()
