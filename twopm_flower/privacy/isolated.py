"""Seeds grown in a process of its own: what crashes native code never ends the server.

The server calls native code for one thing only: growing the uniform half of a node's
update from its seeds. `IsolatedBackend` has that done by a worker process
(`twopm_flower.privacy.native_worker`) and offers nothing else, since a server holds no key.
"""

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import NativeCrash, PrivacyError
from twopm_flower.privacy.backend import Coefficients, Key, load_backend
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.privacy.keys import SharedKey
from twopm_flower.privacy.native_worker import DONE, EXPAND, HEADER, MAGIC, OPEN, REFUSED
from twopm_flower.privacy.parameters import RING_DEGREE, AdditiveParameters
from twopm_flower.privacy.residues import Residues
from twopm_flower.records.canonical import canonical_bytes

TIMEOUT_S = 120.0
"""For the start of a worker or one answer; a million parameters take a tenth of a second."""

# -P: a module in the working folder must not stand in for one of ours.
COMMAND = (sys.executable, "-P", "-m", "twopm_flower.privacy.native_worker")

# Half of what Linux grants by default; fewer switches between the processes than with 64 KiB.
_PIPE_BYTES = 1 << 19
_GRACE_S = 5.0
_MAX_REFUSAL_BYTES = 1 << 16

log = logging.getLogger(__name__)


class NativeWorker:
    """One worker process, started when it is first needed and again after it died.

    Parameters
    ----------
    parameters : AdditiveParameters
        What the worker's backend is made of.
    timeout_s : float
        Seconds that its start, and each of its answers, may take.
    command : sequence of str
        What to start.
    """

    def __init__(
        self,
        parameters: AdditiveParameters,
        *,
        timeout_s: float = TIMEOUT_S,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._parameters = parameters
        self._timeout_s = timeout_s
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., NativeWorker] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None where no process is running."""
        child = self._child
        return None if child is None or child.poll() is not None else child.pid

    def expand(self, seeds: npt.NDArray[np.uint8]) -> Residues:
        """Return what `seeds`, uint8 of shape (rows, 64), grow into: shape (rows, 2048).

        It is as little checked as the seeds are; `Ciphertext` checks that it is residues.

        Raises
        ------
        NativeCrash
            If the process died, answered something else or took too long. The next call
            starts another.
        PrivacyError
            If the backend in the process refused.
        """
        with self._lock:
            child = self._running_child()
            grown = np.empty((len(seeds), RING_DEGREE), "<u8")
            answer = grown.data.cast("B")
            self._ask(child, EXPAND, seeds.tobytes(), answer, f"it grew {len(seeds)} seeds")
        return grown.astype(np.uint64, copy=False)

    def close(self) -> None:
        """End the process and wait for it."""
        with self._lock:
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            log.warning("The worker for native code %s; another is started.", _end(self._child))
            self._discard()
        if self._child is None:
            child = subprocess.Popen(  # noqa: S603 - our own module, no shell
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pipesize=_PIPE_BYTES,
            )
            self._child = child
            self._finalizer = weakref.finalize(self, _stop, child)
            settings = canonical_bytes(self._parameters.to_dict())
            self._ask(child, OPEN, settings, memoryview(b""), "it started")
        return self._child

    def _ask(
        self,
        child: subprocess.Popen[bytes],
        kind: int,
        payload: bytes,
        answer: memoryview,
        what: str,
    ) -> None:
        """Send one message and read an answer of exactly the size of `answer` into it."""
        with _Deadline(child, self._timeout_s) as deadline:
            try:
                refusal = _exchange(child, kind, payload, answer)
            except (OSError, EOFError, ValueError) as error:
                why = str(error) if isinstance(error, ValueError) else None
                expired = deadline.stop()
                raise NativeCrash(self._crash(child, what, why, expired)) from error
            except BaseException:
                # Whoever interrupts us leaves half an answer in the pipe.
                self._discard(kill=True)
                raise
        if deadline.expired:
            self._discard(kill=True)
        if refusal is not None:
            raise PrivacyError(f"The worker for native code refused: {refusal}")

    def _crash(
        self, child: subprocess.Popen[bytes], what: str, why: str | None, expired: bool
    ) -> str:
        if why is not None and not expired:
            self._discard(kill=True)
            return f"The worker for native code answered nonsense while {what}: {why}."
        if not expired:
            # Its end of a pipe is closed: it is dead, or will be at once.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
        end = f"took longer than {self._timeout_s:g} s" if expired else _end(child)
        self._discard(kill=True)
        return f"The worker for native code {end} while {what}; the next call starts another."

    def _discard(self, *, kill: bool = False) -> None:
        child, self._child = self._child, None
        if child is not None and self._finalizer is not None:
            self._finalizer.detach()
            _stop(child, kill=kill)


class IsolatedBackend:
    """The half of a backend that a server needs, in a process of its own.

    Satisfies `Backend`, but encrypts and decrypts nothing. One process is used: growing and
    handing over overlap, and a second one did not make ten million parameters faster.

    Parameters
    ----------
    parameters : AdditiveParameters
        Those of the task.
    worker : NativeWorker, optional
        What grows the seeds; by default a worker for `parameters`.
    """

    def __init__(
        self, parameters: AdditiveParameters, *, worker: NativeWorker | None = None
    ) -> None:
        self.name: str = parameters.backend
        self.worker = NativeWorker(parameters) if worker is None else worker

    @property
    def needs_key(self) -> bool:
        """Whether the backend's encryption needs a key."""
        return load_backend(self.name).needs_key

    def expand(self, ciphertext: SeededCiphertext) -> Ciphertext:
        """Return the ciphertext with c1 grown from the seeds; without seeds, as it is.

        Where a worker dies, a fresh one is tried once: what the system ended must not cost an
        honest node its round.

        Raises
        ------
        NativeCrash
            If the second process died, too.
        PrivacyError
            If the backend refused, or what it grew are no residues.
        """
        seeds = ciphertext.seeds
        if not len(seeds):
            return ciphertext.with_c1(np.empty((0, RING_DEGREE), np.uint64))
        try:
            grown = self.worker.expand(seeds)
        except NativeCrash as crash:
            log.warning("%s Trying once more.", crash)
            grown = self.worker.expand(seeds)
        return ciphertext.with_c1(grown)

    def generate_key(self) -> SharedKey | None:
        """Refuse: a server makes no keys."""
        raise _no_key()

    def encrypt(self, coefficients: Coefficients, key: Key) -> SeededCiphertext:
        """Refuse: a server encrypts nothing."""
        raise _no_key()

    def decrypt(self, ciphertext: Ciphertext, key: Key) -> Coefficients:
        """Refuse: a server decrypts nothing."""
        raise _no_key()

    def close(self) -> None:
        """End the process and wait for it; a later call starts another."""
        self.worker.close()


class _Deadline:
    """Kills a process that has not answered in time, unless stopped before."""

    def __init__(self, child: subprocess.Popen[bytes], timeout_s: float) -> None:
        self.expired = False
        self._child = child
        self._stopped = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> bool:
        """Return whether it was too late."""
        with self._lock:
            self._stopped = True
        self._timer.cancel()
        return self.expired

    def _expire(self) -> None:
        with self._lock:
            if not self._stopped:
                self.expired = True
                self._child.kill()


def _no_key() -> PrivacyError:
    return PrivacyError("A server's backend only grows seeds; it has no key.")


def _exchange(
    child: subprocess.Popen[bytes], kind: int, payload: bytes, answer: memoryview
) -> str | None:
    """Return None when `answer` is filled, or why the worker refused."""
    source, sink = cast(BinaryIO, child.stdout), cast(BinaryIO, child.stdin)
    _write(sink, HEADER.pack(MAGIC, kind, len(payload)))
    _write(sink, payload)
    header = bytearray(HEADER.size)
    _read(source, memoryview(header))
    magic, found, length = HEADER.unpack(header)
    if magic == MAGIC and found == DONE and length == len(answer):
        _read(source, answer)
        return None
    if magic == MAGIC and found == REFUSED and length <= _MAX_REFUSAL_BYTES:
        why = bytearray(length)
        _read(source, memoryview(why))
        return why.decode(errors="replace")
    raise ValueError(f"the header {header.hex()}")


def _write(sink: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]


def _read(source: BinaryIO, into: memoryview) -> None:
    while into:
        count = cast(int, source.readinto(into))  # type: ignore[attr-defined]  # a raw pipe has it
        if not count:
            raise EOFError
        into = into[count:]


def _end(child: subprocess.Popen[bytes]) -> str:
    code = child.poll()
    if code is None:
        return "closed its pipes"
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _stop(child: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    """End a process and reap it; closing its input is enough for one that is well."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if kill:
        child.kill()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
