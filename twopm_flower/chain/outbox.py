"""A durable queue of what has yet to reach the chain: nothing is lost, nothing sent twice.

An entry goes queued -> reserved -> signed -> broadcast -> mined -> confirmed -> final. The
signed bytes are stored before they are sent for the first time, so whoever comes after a crash
sends the same bytes again; and whether the chain holds the record already is asked before
anything is signed. Until an entry is final, its block is looked at again in each delivery, and
one whose block is gone is sent once more. An entry that the chain refuses, or that conflicts
with what it holds, becomes failed and holds back its task.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from twopm_flower.chain.base import Call, Delivering
from twopm_flower.chain.outbox_delivery import BUMP_AFTER_S, INCLUSION_TIMEOUT_S, Passage
from twopm_flower.chain.outbox_store import ON_CHAIN, Entry, EntryState, OutboxStore
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.errors import ChainError, ChainUnavailable

__all__ = ["Entry", "EntryState", "Outbox"]


class Outbox:
    """A queue in a SQLite file.

    Any thread or process may queue; one process at a time delivers.

    Parameters
    ----------
    path : Path
        The file; its folder is created.
    confirmations : int
        How many blocks make an entry confirmed, its own included.
    bump_after_s : float
        How long bytes may wait for a block before they bid more, in seconds.
    observe : callable, optional
        Called with the name of each step that was just taken (``queued``, ``reserved``,
        ``signed``, ``stored``, ``sent``, ``included``, ``mined``, ``confirmed``, ``final``,
        ``reorganised``) and the entry's number.
    clock : callable
        Returns seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        *,
        confirmations: int = 1,
        bump_after_s: float = BUMP_AFTER_S,
        observe: Callable[[str, int], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._store = OutboxStore(path)
        self._confirmations = confirmations
        self._bump_after_s = bump_after_s
        self._observe = observe or (lambda _step, _number: None)
        self._clock = clock
        self._delivering = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def enqueue(self, call: Call) -> int:
        """Queue what is to be done.

        Queueing the same again is no error and does nothing.

        Parameters
        ----------
        call : Call
            What is to be done.

        Returns
        -------
        int
            The entry's number.

        Raises
        ------
        RecordConflict
            Something else is queued, or was delivered, for this round and attempt, as this
            round's model, as the end of this task, or for this root.
        """
        number, is_new = self._store.add(call)
        if is_new:
            self._observe("queued", number)
        return number

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries in order, delivered ones included."""
        return self._store.entries()

    def pending(self) -> tuple[Entry, ...]:
        """Return the entries that are in no block, failed ones included."""
        return self._store.entries(but=ON_CHAIN)

    def settling(self) -> tuple[Entry, ...]:
        """Return the entries that are in a block which can still be undone."""
        return self._store.entries("mined", "confirmed")

    def retry_failed(self) -> int:
        """Put failed entries back into the queue and return how many there were.

        The fees of all that wait start over, so that what had come to its limit bids again.
        """
        return self._store.retry_failed()

    def deliver(self, connector: Delivering, *, receipt_timeout_s: float | None = None) -> int:
        """Send what is pending, and wait until it is mined; look again at what is not final.

        Entries of one task are delivered in order, different tasks side by side.

        Parameters
        ----------
        connector : ChainConnector
            The chain.
        receipt_timeout_s : float, optional
            How long to wait while nothing gets into a block, in seconds.

        Returns
        -------
        int
            How many entries were delivered.

        Raises
        ------
        ChainUnavailable
            Nobody answers, nothing was mined in time, or another process is delivering; call
            again later.
        WrongChain
            The endpoint shows a receipt for what its own state does not show.
        TransactionReverted, RecordConflict
            An entry failed. Its task is held back from now on, other tasks are not.
        """
        with self._delivering:
            lock = self._delivery_lock()
            try:
                passage = Passage(
                    self._store,
                    connector,
                    confirmations=self._confirmations,
                    bump_after_s=self._bump_after_s,
                    observe=self._observe,
                    clock=self._clock,
                )
                passage.settle()
                limit = INCLUSION_TIMEOUT_S if receipt_timeout_s is None else receipt_timeout_s
                return passage.deliver(limit)
            finally:
                lock.release()

    def _delivery_lock(self) -> ProcessLock:
        path = self._path.with_name(self._path.name + ".lock")
        try:
            return ProcessLock(path, owner="delivery of the outbox")
        except ChainError as error:
            raise ChainUnavailable(str(error)) from error
