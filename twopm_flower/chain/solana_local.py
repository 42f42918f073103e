"""The local Solana chain: a folder that holds one of one's own, and the server for it."""

import argparse
import secrets
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from solders.pubkey import Pubkey

from twopm_flower.chain.local_process import (
    ACCOUNT_KEY,
    LocalProcess,
    answer_until,
    serve_from_command_line,
)
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.chain.solana_node import SolanaNode
from twopm_flower.chain.solana_rpc import SolanaRpc
from twopm_flower.chain.solana_rpc_server import MAX_AIRDROP_LAMPORTS, SolanaJsonRpc
from twopm_flower.chain.solana_store import SolanaStore
from twopm_flower.config import make_private_folder
from twopm_flower.errors import ChainError
from twopm_flower.signer.ed25519 import LocalSolanaSigner, create_solana_key_file

DATABASE = "solana.sqlite"


class SolanaLocal:
    """Opens the chain in a folder, or makes one: a random genesis hash, our program in place.

    One process at a time opens it for writing; other processes reach it through a server
    (:func:`serve`) or read the folder (:func:`open_read_only`).

    Parameters
    ----------
    folder : Path
        Holds ``solana.sqlite`` and ``account.key``, the key of the one funded account.
    program : bytes, optional
        The program to load when the chain is made; the packaged one otherwise.

    Attributes
    ----------
    chain_id : int
        What stands for the chain in statements.
    signer : LocalSolanaSigner
        Signs for the funded account.
    rpc : SolanaJsonRpc
        An endpoint for connectors in this process.

    Raises
    ------
    ChainError
        Another process has it open, or the folder holds something else.
    """

    def __init__(self, folder: Path, *, program: bytes | None = None) -> None:
        try:
            make_private_folder(folder)
        except OSError as error:
            raise ChainError(
                f"no chain can be kept in {folder}: {error.strerror}",
                hint="Name a folder that is a local chain's, or that does not exist yet.",
            ) from error
        self._lock = ProcessLock(folder / "solana.lock", owner="a local Solana chain")
        try:
            key_file = folder / ACCOUNT_KEY
            if key_file.exists():
                self.signer = LocalSolanaSigner.from_file(key_file)
            else:
                self.signer = create_solana_key_file(key_file)
            store = SolanaStore(folder / DATABASE)
            self._node = SolanaNode(store, account=self.signer.public_key, program=program)
        except BaseException:
            self._lock.release()
            raise
        self.chain_id = self._node.chain_id
        self.rpc = SolanaJsonRpc(self._node)

    def close(self) -> None:
        """Close the database and let others open it."""
        self._node.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_read_only(folder: Path) -> SolanaJsonRpc:
    """Open the chain in a folder for reading, whether or not a server runs over it.

    Parameters
    ----------
    folder : Path
        The chain's folder; nothing is written to it.

    Returns
    -------
    SolanaJsonRpc
        To be given to :class:`~twopm_flower.chain.solana_reader.SolanaReader` in place of an
        address.

    Raises
    ------
    ChainError
        There is no chain in it.
    """
    node = SolanaNode(SolanaStore(folder / DATABASE, read_only=True))
    return SolanaJsonRpc(node, read_only=True)


def serve(
    folder: Path, host: str, port: int, ready: Callable[[str, int], None], stop: threading.Event
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
    ready : callable
        Called with the address (``http://host:port``) and the chain id once requests are
        answered.
    stop : threading.Event
        Ends the server.

    Raises
    ------
    ChainError
        The chain cannot be opened, or the port cannot be bound.
    """
    with SolanaLocal(folder) as chain:
        answer_until(stop, chain.rpc, host, port, ready=lambda url: ready(url, chain.chain_id))


class SolanaProcess(LocalProcess):
    """Runs the server in a process of its own, which ends with this one.

    Parameters
    ----------
    folder : Path
        The chain's folder.
    port : int
        The port; 0 lets the system choose.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__("twopm_flower.chain.solana_local", folder, port)

    @property
    def signer(self) -> LocalSolanaSigner:
        """Signs for the funded account."""
        return LocalSolanaSigner.from_file(self.folder / ACCOUNT_KEY)

    def new_account(self) -> LocalSolanaSigner:
        """Return a signer for a new account with some thousand SOL from the chain's faucet."""
        signer = LocalSolanaSigner(secrets.token_bytes(32))
        receiver = str(Pubkey(signer.public_key))
        SolanaRpc([self.url], None).ask("requestAirdrop", receiver, MAX_AIRDROP_LAMPORTS)
        return signer


def main() -> int:
    """Serve from the command line: ``python -m twopm_flower.chain.solana_local --folder F``."""
    parser = argparse.ArgumentParser(description="Serve the local Solana chain in a folder.")
    return serve_from_command_line(serve, parser)


if __name__ == "__main__":
    sys.exit(main())
