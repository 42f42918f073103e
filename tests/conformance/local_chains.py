"""Opens a local chain of any kind: of each backend that is registered, and anvil."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from twopm_flower.chain.backends import ChainBackend, LocalChain, backend, families
from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ConfigError
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.keystore import LocalSigner

ONE_FILE_BACKEND = Path(__file__).parent / "one_file_backend"
# The first account of anvil's published test mnemonic.
ANVIL_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


@dataclass
class Chain:
    """A local chain with our contracts on it."""

    backend: ChainBackend
    local: LocalChain
    deployment: Deployment

    def settings(self, **changes: Any) -> ChainSettings:
        pinned = self.deployment.model_dump() | {
            "rpc_url": self.local.url,
            "devnet_folder": self.local.folder,
        }
        return ChainSettings(**pinned | changes)

    def connector(self, signer: Any) -> ChainConnector:
        return self.backend.open_connector(self.settings(), signer)

    def reader(self, **changes: Any) -> ChainReader:
        return self.backend.open_reader(self.settings(**changes))


@contextmanager
def with_one_file_backend() -> Iterator[None]:
    """Install the backend of the folder: its file and its entry point come onto the path."""
    sys.path.append(str(ONE_FILE_BACKEND))
    try:
        yield
    finally:
        sys.path.remove(str(ONE_FILE_BACKEND))


def names() -> tuple[str, ...]:
    """Return the names of all chains that the suite runs on."""
    with with_one_file_backend():
        return (*families(), "anvil")


@contextmanager
def open_chain(name: str, folder: Path) -> Iterator[Chain]:
    """Start a chain and place our contracts on it."""
    kind = _backend("evm" if name == "anvil" else name)
    local: LocalChain = Anvil(folder) if name == "anvil" else kind.local_chain(folder / "chain")
    with local:
        yield Chain(kind, local, kind.deploy(local.url, local.signer))


def _backend(family: str) -> ChainBackend:
    with with_one_file_backend():
        try:
            return backend(family)
        except ConfigError as error:
            missing = getattr(error.__cause__, "name", None) or ""
            if missing.startswith("twopm_flower"):
                raise
            pytest.skip(str(error))


def find_anvil() -> str | None:
    packages = Path(__file__).parents[2] / "contracts" / "node_modules" / "@foundry-rs"
    installed = sorted(str(path) for path in packages.glob("anvil-*/bin/anvil"))
    return os.environ.get("TWOPM_ANVIL") or shutil.which("anvil") or (installed or [None])[0]


class Anvil:
    """Anvil, as npm installs it, with a folder that keeps its state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        # Two that are started in the same second have the same first block.
        self.chain_id = 2**31 + secrets.randbits(20)
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "account.key").write_text(ANVIL_KEY)
        (folder / "account.key").chmod(0o600)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def signer(self) -> LocalSigner:
        return LocalSigner.from_file(self.folder / "account.key")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def new_account(self) -> LocalSigner:
        signer = LocalSigner(os.urandom(32))
        self.rpc("anvil_setBalance", signer.address, hex(10**20))
        return signer

    def rpc(self, method: str, *parameters: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        return requests.post(self.url, json=body, timeout=5).json()

    def start(self) -> "Anvil":
        anvil = find_anvil()
        if anvil is None:
            pytest.skip(
                "anvil is missing: run `npm install --no-save @foundry-rs/anvil@1.7.1` in"
                " contracts/, put it on PATH, or set TWOPM_ANVIL to its path"
            )
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [anvil, "--port", str(self.port), "--chain-id", str(self.chain_id), "--silent"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.rpc("eth_chainId")
            except requests.ConnectionError:
                assert self.is_running, "anvil ended"
                assert time.monotonic() < deadline, "anvil does not answer"
                time.sleep(0.02)
            else:
                return self

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Anvil":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
