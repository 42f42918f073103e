"""A local chain's server in a process of its own, which ends with this one."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

from twopm_flower.chain.json_rpc import AnswersRequests, RpcServer
from twopm_flower.errors import ChainError, ChainUnavailable
from twopm_flower.signer.keystore import LocalSigner

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
ACCOUNT_KEY = "account.key"

Serve = Callable[[Path, str, int, Callable[[str, int], None], threading.Event], None]
"""What serves a folder on a host and port, announces address and chain id, and ends on an event."""


class LocalProcess:
    """Runs ``python -m module --folder FOLDER --port PORT --until-stdin-closes``.

    Parameters
    ----------
    module : str
        A module whose ``main`` is :func:`serve_from_command_line`.
    folder : Path
        The chain's folder.
    port : int
        The port; 0 lets the system choose.

    Attributes
    ----------
    url : str
        Where it answers; known once started.
    chain_id : int
        The chain's id; known once started.
    """

    def __init__(self, module: str, folder: Path, port: int = 0) -> None:
        self._module = module
        self.folder = folder
        self.port = port
        self.url = ""
        self.chain_id = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def signer(self) -> Any:
        """Signs for the account in the folder."""
        return LocalSigner.from_file(self.folder / ACCOUNT_KEY)

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        if self._process is None:
            raise ChainUnavailable(f"nothing runs over {self.folder}")
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises
        ------
        ChainUnavailable
            It does not start; its own words are quoted.
        """
        # -P: a module in the working folder must not stand in for one of ours.
        command = [sys.executable, "-P", "-m", self._module]
        command += ["--folder", str(self.folder), "--port", str(self.port), "--until-stdin-closes"]
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._process = process
        line = _read_line(process, START_TIMEOUT_S)
        if not line:
            process.kill()
            words = process.communicate()[1].strip().splitlines()
            self._process = None
            raise ChainUnavailable(
                f"the chain at {self.folder} does not start: {' '.join(words[-1:])}"
            )
        announced = json.loads(line)
        self.url, self.chain_id = announced["url"], announced["chain_id"]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def stop(self) -> None:
        """End it in good order, and by force when it does not end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def kill(self) -> None:
        """End it without a chance to tidy up, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def answer_until(
    stop: threading.Event,
    endpoint: AnswersRequests,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
) -> None:
    """Answer requests over HTTP until an event is set.

    Parameters
    ----------
    stop : threading.Event
        Ends it, as does an exception such as KeyboardInterrupt.
    endpoint : AnswersRequests
        What answers.
    host : str
        The address to bind.
    port : int
        The port; 0 lets the system choose.
    ready : callable
        Called with the address (``http://host:port``) once requests are answered.

    Raises
    ------
    ChainError
        The port cannot be bound.
    """
    try:
        server = RpcServer(endpoint, host, port)
    except OSError as error:
        raise ChainError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="Choose another port, or 0 for any free one.",
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        ready(server.url)
        stop.wait()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve_from_command_line(serve: Serve, parser: argparse.ArgumentParser) -> int:
    """Serve a folder until a signal comes, or until standard input closes.

    Parameters
    ----------
    serve : callable
        See :data:`Serve`.
    parser : argparse.ArgumentParser
        Describes the program.

    Returns
    -------
    int
        The exit status; 1 when the folder cannot be served, which is said on standard error.
    """
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--until-stdin-closes", action="store_true")
    arguments = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.until_stdin_closes:
        # The other end of the pipe closes when the parent ends, however it ends.
        threading.Thread(target=_set_at_end_of, args=(sys.stdin, stop), daemon=True).start()
    try:
        serve(arguments.folder, arguments.host, arguments.port, _announce, stop)
    except ChainError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _announce(url: str, chain_id: int) -> None:
    sys.stdout.write(json.dumps({"url": url, "chain_id": chain_id}) + "\n")
    sys.stdout.flush()


def _set_at_end_of(stream: IO[str], stop: threading.Event) -> None:
    # Read from the descriptor: a buffered reader held by a daemon thread upsets the
    # interpreter's shutdown.
    while os.read(stream.fileno(), 4096):
        pass
    stop.set()


def _read_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        return process.stdout.readline() if process.stdout is not None else ""
    finally:
        timer.cancel()
