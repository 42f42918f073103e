"""One transaction of a database: all of its writes are kept, or none."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


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
    except BaseException:
        # Some failures, such as a full disk, have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
