"""The embedded chain: a folder that holds an EVM chain of one's own, and the server for it."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from twopm_flower.chain.devnet_node import DevnetNode
from twopm_flower.chain.devnet_rpc import JsonRpc, RpcServer
from twopm_flower.chain.devnet_store import DevnetStore
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.config import make_private_folder
from twopm_flower.errors import ChainError, ChainUnavailable
from twopm_flower.signer.keystore import LocalSigner, create_key_file

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
EXECUTION_STACK_BYTES = 64 * 1024 * 1024


class Devnet:
    """Opens the chain in a folder, or makes one: a random chain id, a random first block.

    One process at a time opens it for writing; other processes reach it through a server
    (:func:`serve`) or read the folder (:func:`open_read_only`).

    Parameters
    ----------
    folder : Path
        Holds ``chain.sqlite`` and ``account.key``, the key of the one funded account.

    Attributes
    ----------
    chain_id : int
        From 2^31 to 2^51, drawn when the chain was made.
    genesis_hash : str
        Hash of block 0.
    signer : LocalSigner
        Signs for the funded account.
    rpc : JsonRpc
        An endpoint for connectors in this process.

    Raises
    ------
    ChainError
        Another process has it open, or the folder holds something else.

    Examples
    --------
    >>> with Devnet(folder) as devnet:  # doctest: +SKIP
    ...     deployment = deploy(devnet.rpc, devnet.signer)
    """

    def __init__(self, folder: Path) -> None:
        try:
            make_private_folder(folder)
        except OSError as error:
            raise ChainError(
                f"no chain can be kept in {folder}: {error.strerror}",
                hint="Name a folder that is an embedded chain's, or that does not exist yet.",
            ) from error
        self._lock = ProcessLock(folder / "devnet.lock", owner="an embedded chain")
        try:
            key_file = folder / "account.key"
            if key_file.exists():
                self.signer = LocalSigner.from_file(key_file)
            else:
                self.signer = create_key_file(key_file)
            account = bytes.fromhex(self.signer.address[2:])
            self._node = DevnetNode(DevnetStore(folder / "chain.sqlite"), genesis_account=account)
        except BaseException:
            self._lock.release()
            raise
        self.chain_id = self._node.chain_id
        self.genesis_hash = self._node.genesis_hash
        self.rpc = JsonRpc(self._node)

    def close(self) -> None:
        """Close the database and let others open it."""
        self._node.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_read_only(folder: Path) -> JsonRpc:
    """Open the chain in a folder for reading, whether or not a server runs over it.

    Parameters
    ----------
    folder : Path
        The chain's folder; nothing is written to it.

    Returns
    -------
    JsonRpc
        To be given to :class:`~twopm_flower.chain.evm.EvmReader` in place of an address.

    Raises
    ------
    ChainError
        There is no chain in it.
    """
    node = DevnetNode(DevnetStore(folder / "chain.sqlite", read_only=True))
    return JsonRpc(node)


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ready: Callable[[str, Devnet], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the chain in a folder until `stop` is set.

    Parameters
    ----------
    folder : Path
        The chain's folder.
    host : str
        The address to bind. Everybody who reaches it may send transactions.
    port : int
        The port; 0 lets the system choose.
    ready : callable, optional
        Called with the address (``http://host:port``) and the chain once requests are answered.
    stop : threading.Event, optional
        Ends the server; without it, only an exception such as KeyboardInterrupt does.

    Raises
    ------
    ChainError
        The chain cannot be opened, or the port cannot be bound.
    """
    stop = stop or threading.Event()
    with Devnet(folder) as devnet:
        try:
            server = RpcServer(devnet.rpc, host, port)
        except OSError as error:
            raise ChainError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="Choose another port, or 0 for any free one.",
            ) from error
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            if ready is not None:
                ready(server.url, devnet)
            stop.wait()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class DevnetProcess:
    """Runs the server in a process of its own, which ends with this one.

    Parameters
    ----------
    folder : Path
        The chain's folder.
    port : int
        The port; 0 lets the system choose.

    Attributes
    ----------
    url : str
        Where it answers; known once entered.
    chain_id : int
        The chain's id; known once entered.

    Raises
    ------
    ChainUnavailable
        It does not start; its own words are quoted.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.url = ""
        self.chain_id = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def signer(self) -> LocalSigner:
        """Signs for the funded account."""
        return LocalSigner.from_file(self.folder / "account.key")

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        if self._process is None:
            raise ChainUnavailable("the embedded chain is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers."""
        # -P: a module in the working folder must not stand in for one of ours.
        command = [sys.executable, "-P", "-m", "twopm_flower.chain.devnet"]
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
                f"the embedded chain at {self.folder} does not start: {' '.join(words[-1:])}"
            )
        announced = json.loads(line)
        self.url, self.chain_id = announced["url"], announced["chain_id"]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def stop(self) -> None:
        """End the server in good order, and by force when it does not end."""
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
        """End the server without a chance to tidy up, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> int:
    """Serve from the command line: ``python -m twopm_flower.chain.devnet --folder FOLDER``."""
    parser = argparse.ArgumentParser(description="Serve the embedded chain in a folder.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--until-stdin-closes", action="store_true")
    arguments = parser.parse_args()

    # Contracts may call each other 1024 levels deep, on the stack of the thread that executes.
    threading.stack_size(EXECUTION_STACK_BYTES)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.until_stdin_closes:
        # The other end of the pipe closes when the parent ends, however it ends.
        threading.Thread(target=_set_at_end_of, args=(sys.stdin, stop), daemon=True).start()
    try:
        serve(arguments.folder, arguments.host, arguments.port, ready=_announce, stop=stop)
    except ChainError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _announce(url: str, devnet: Devnet) -> None:
    announced = {"url": url, "chain_id": devnet.chain_id, "account": devnet.signer.address}
    sys.stdout.write(json.dumps(announced) + "\n")
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


if __name__ == "__main__":
    sys.exit(main())
