"""Delivers an outbox in the background, and waits for it at the end."""

import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Self

from twopm_flower.chain.base import Call, Delivering
from twopm_flower.chain.outbox import Outbox
from twopm_flower.errors import ChainError, ChainUnavailable, SignerError, SignerUnavailable

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SETTLE_PAUSE_S = 15.0

_log = logging.getLogger(__name__)


class OutboxWorker:
    """A thread that delivers whatever is queued, and tries again when nobody answers.

    Parameters
    ----------
    outbox : Outbox or Path
        What to deliver.
    connector : ChainConnector
        The chain.
    first_pause_s, longest_pause_s : float
        How long to wait after a failure; each further failure doubles it.
    settle_pause_s : float
        How long to wait between looks at what is mined and not final.

    Examples
    --------
    >>> with OutboxWorker(outbox, connector) as worker:  # doctest: +SKIP
    ...     worker.enqueue(call)
    ...     worker.flush(timeout_s=300)
    """

    def __init__(
        self,
        outbox: Outbox | Path,
        connector: Delivering,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        settle_pause_s: float = SETTLE_PAUSE_S,
    ) -> None:
        self._outbox = Outbox(outbox) if isinstance(outbox, Path) else outbox
        self._connector = connector
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._settle_pause_s = settle_pause_s
        self._changed = threading.Condition()
        self._stopping = False
        self._wanted = True
        self._hurried = False
        self._pause_s = 0.0
        self._alarm: ChainError | SignerError | sqlite3.Error | None = None
        self._trouble: ChainUnavailable | SignerUnavailable | None = None
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    @property
    def alarm(self) -> ChainError | SignerError | sqlite3.Error | None:
        """The first error that trying again does not mend, or None."""
        return self._alarm

    def start(self) -> Self:
        """Start delivering."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop after the entry that is being delivered; the rest stays queued."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def enqueue(self, call: Call) -> int:
        """Queue an entry and wake the thread; see :meth:`Outbox.enqueue`."""
        number = self._outbox.enqueue(call)
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
        return number

    def unrecorded(self) -> int:
        """Return how many entries are in no block."""
        return len(self._outbox.pending())

    def flush(self, timeout_s: float) -> None:
        """Wait until everything is in a block, and cut a pause between attempts short.

        Parameters
        ----------
        timeout_s : float
            How long to wait, in seconds.

        Raises
        ------
        ChainUnavailable
            Not everything was delivered in time; it stays in the outbox.
        ChainError, SignerError, sqlite3.Error
            An entry failed for good, the signer refuses, or the outbox cannot be read.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._wanted = self._hurried = True
            self._changed.notify_all()
            while pending := self._outbox.pending():
                if self._alarm is not None:
                    raise self._alarm
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._thread.is_alive():
                    raise ChainUnavailable(
                        f"{len(pending)} entries of the outbox are not on the chain"
                        f" after {timeout_s:g} s",
                        hint="Deliver again when the chain answers: nothing is lost.",
                    ) from self._trouble
                self._changed.wait(remaining)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._outbox.deliver(self._connector)
            except (ChainUnavailable, SignerUnavailable) as error:
                self._trouble, self._wanted = error, True
                self._pause_longer()
                _log.warning("no delivery, next attempt in %g s: %s", self._pause_s, error)
            except (ChainError, SignerError, sqlite3.Error) as error:
                # Tasks other than the failed one go on; the first alarm is the one that counts.
                self._alarm, self._wanted = self._alarm or error, True
                self._pause_longer()
                _log.error("the outbox cannot deliver: %s", error)
            except Exception as error:  # noqa: BLE001  # told to whoever waits, not lost with a thread
                self._alarm = self._alarm or _unexpected(error)
                self._wanted = True
                self._pause_longer()
                _log.error("the outbox cannot deliver", exc_info=error)
            else:
                self._pause_s = 0.0
            with self._changed:
                self._changed.notify_all()

    def _pause_longer(self) -> None:
        self._pause_s = min(max(2 * self._pause_s, self._first_pause_s), self._longest_pause_s)

    def _wait_for_work(self) -> bool:
        with self._changed:
            if self._pause_s > 0:
                woken = self._changed.wait_for(
                    lambda: self._stopping or self._hurried, timeout=self._pause_s
                )
                # Somebody waits for us now, so patience starts over.
                self._pause_s = 0.0 if woken else self._pause_s
            # What is in a block that can be undone is looked at from time to time.
            patience = self._settle_pause_s if self._outbox.settling() else None
            self._changed.wait_for(lambda: self._stopping or self._wanted, timeout=patience)
            self._wanted = self._hurried = False
            return not self._stopping


def _unexpected(error: Exception) -> ChainError:
    alarm = ChainError(
        f"the outbox cannot deliver, for a reason that is a fault of ours: {error!r}",
        hint="Nothing is lost. Please report it with the log.",
    )
    alarm.__cause__ = error
    return alarm
