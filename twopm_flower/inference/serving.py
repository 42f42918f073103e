"""A service of several worker processes on one socket: started, replaced when they die, ended."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from twopm_flower.errors import InferenceError
from twopm_flower.inference.metrics import FOLDER_VARIABLE, forget_process
from twopm_flower.inference.worker import GRACE_S, Plan

START_S: Final = 60.0
_BACKLOG: Final = 256
_LOOK_S: Final = 0.2
_PAUSE_S: Final = 1.0
_SOON_S: Final = 5.0

log = logging.getLogger(__name__)

# -P: a module in the working folder must not stand in for one of ours.
_COMMAND: Final = (sys.executable, "-P", "-m", "twopm_flower.inference.worker")


class Serving:
    """Worker processes that share a listening socket.

    This process keeps the socket open, so that whoever connects while a worker dies waits for the
    next one. A worker that ends is replaced; one that cannot even start ends the service.

    Parameters
    ----------
    listening : socket.socket
        Bound and listening.
    plan : Plan
        What each worker is told.
    workers : int
    """

    def __init__(self, listening: socket.socket, plan: Plan, workers: int) -> None:
        self._listening = listening
        self._plan = plan
        self._count = workers
        self._workers: list[subprocess.Popen[bytes]] = []
        self._started: dict[int, float] = {}
        self._stop = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="twopm-inference-")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on."""
        host, port = self._listening.getsockname()[:2]
        return str(host), int(port)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def __enter__(self) -> Self:
        self._workers = [self._start() for _ in range(self._count)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S + 5
        for worker in self._workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._listening.close()
        self._folder.cleanup()

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()

    def run(self) -> None:
        """Look after the workers until `stop` is called.

        Raises
        ------
        InferenceError
            Workers end as soon as they start.
        """
        failures = 0
        while not self._stop.wait(_LOOK_S):
            for index, worker in enumerate(self._workers):
                code = worker.poll()
                if code is None:
                    continue
                forget_process(Path(self._folder.name), worker.pid)
                lived_s = time.monotonic() - self._started.pop(worker.pid)
                failures = failures + 1 if lived_s < _SOON_S else 1
                if failures > 3 * self._count:
                    raise InferenceError(
                        f"workers end as soon as they start, the last one with status {code}",
                        hint="Their words are above.",
                    )
                log.warning("a worker ended with status %d; another is started", code)
                if failures > self._count:
                    self._stop.wait(_PAUSE_S)
                self._workers[index] = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        descriptor = self._listening.fileno()
        worker = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            (*_COMMAND, str(descriptor), str(os.getpid())),
            stdin=subprocess.PIPE,
            pass_fds=(descriptor,),
            # Read when prometheus_client is imported, so that workers add up.
            env={**os.environ, FOLDER_VARIABLE: self._folder.name},
        )
        self._started[worker.pid] = time.monotonic()
        if worker.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(self._plan.model_dump_json().encode() + b"\n")
                worker.stdin.close()
        return worker


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    InferenceError
        The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise InferenceError(
            f"{host}:{port} cannot be listened on: {error}", hint="Choose another --port."
        ) from error
    listening.set_inheritable(True)
    return listening
