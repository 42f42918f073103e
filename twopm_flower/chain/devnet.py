"""The embedded chain: a folder that holds an EVM chain of one's own, and the server for it."""

import argparse
import secrets
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import requests

from twopm_flower.chain.devnet_node import DevnetNode
from twopm_flower.chain.devnet_rpc import JsonRpc
from twopm_flower.chain.devnet_store import DevnetStore
from twopm_flower.chain.local_process import LocalProcess, answer_until, serve_from_command_line
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.config import make_private_folder
from twopm_flower.errors import ChainError, ChainUnavailable
from twopm_flower.signer.keystore import LocalSigner, create_key_file

REQUEST_TIMEOUT_S = 10.0
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
    with Devnet(folder) as devnet:
        answer_until(
            stop or threading.Event(),
            devnet.rpc,
            host,
            port,
            ready=lambda url: None if ready is None else ready(url, devnet),
        )


class DevnetProcess(LocalProcess):
    """Runs the server in a process of its own, which ends with this one.

    Parameters
    ----------
    folder : Path
        The chain's folder.
    port : int
        The port; 0 lets the system choose.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__("twopm_flower.chain.devnet", folder, port)

    def new_account(self) -> LocalSigner:
        """Return a signer for a new account with a hundredth of what the funded one has."""
        new, funded = LocalSigner(secrets.token_bytes(32)), self.signer
        balance = int(self._ask("eth_getBalance", funded.address, "latest"), 16)
        fee = int(self._ask("eth_gasPrice"), 16)
        fields = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": int(self._ask("eth_getTransactionCount", funded.address, "pending"), 16),
            "to": new.address,
            "data": "0x",
            "value": balance // 100,
            "gas": 21_000,
            "maxFeePerGas": 2 * fee,
            "maxPriorityFeePerGas": 1,
        }
        # A transaction is mined before its sender gets an answer.
        self._ask("eth_sendRawTransaction", "0x" + funded.sign_transaction(fields).hex())
        return new

    def _ask(self, method: str, *parameters: str) -> str:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        try:
            answer = requests.post(self.url, json=request, timeout=REQUEST_TIMEOUT_S).json()
            return str(answer["result"])
        except (requests.RequestException, KeyError, ValueError) as error:
            raise ChainUnavailable(f"the embedded chain does not answer {method}") from error


def main() -> int:
    """Serve from the command line: ``python -m twopm_flower.chain.devnet --folder FOLDER``."""
    # Contracts may call each other 1024 levels deep, on the stack of the thread that executes.
    threading.stack_size(EXECUTION_STACK_BYTES)
    parser = argparse.ArgumentParser(description="Serve the embedded chain in a folder.")
    return serve_from_command_line(_serve, parser)


def _serve(
    folder: Path, host: str, port: int, ready: Callable[[str, int], None], stop: threading.Event
) -> None:
    serve(folder, host, port, ready=lambda url, devnet: ready(url, devnet.chain_id), stop=stop)


if __name__ == "__main__":
    sys.exit(main())
