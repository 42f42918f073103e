"""All that a new kind of chain takes: this file, and the entry point beside it.

A paper chain is a ledger that the process keeps for itself, without a server.
"""

import os
import secrets
from pathlib import Path
from typing import Self

from twopm_flower.chain.backends import KeyKind, deployment_of, refuse_program
from twopm_flower.chain.json_rpc import AnswersRequests
from twopm_flower.chain.ledger_connector import LedgerConnector
from twopm_flower.chain.ledger_reader import LedgerReader
from twopm_flower.chain.ledger_service import LedgerService
from twopm_flower.chain.ledger_source import FileSource, ServiceSource
from twopm_flower.chain.ledger_store import FILE_NAME
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ChainUnavailable
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.keystore import LocalSigner

_OPEN: dict[str, AnswersRequests] = {}


class Endpoint:
    """Finds the chain of an address whenever it is asked."""

    def __init__(self, url: str) -> None:
        self._url = url

    def answer(self, request):
        if self._url not in _OPEN:
            raise ChainUnavailable(f"nobody keeps {self._url}", hint="Start it.")
        return _OPEN[self._url].answer(request)


class PaperChain:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.pid = folder, 0, os.getpid()
        self.url, self.chain_id = f"paper:{folder}", 0

    @property
    def signer(self) -> LocalSigner:
        return LocalSigner.from_file(self.folder / "account.key")

    @property
    def is_running(self) -> bool:
        return self.url in _OPEN

    def new_account(self) -> LocalSigner:
        return LocalSigner(secrets.token_bytes(32))

    def start(self) -> Self:
        service = _OPEN[self.url] = LedgerService(self.folder)
        self.chain_id = service.replay.deployment.chain_id
        return self

    def stop(self) -> None:
        if self.is_running:
            _OPEN.pop(self.url).close()

    kill = stop

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class PaperBackend:
    family = "paper"
    key_kind: KeyKind = "secp256k1"

    def open_signer(self, key: Path, *, password_file: Path | None = None) -> LocalSigner:
        return LocalSigner.from_file(key, password_file=password_file)

    def open_reader(self, chain: ChainSettings) -> LedgerReader:
        return LedgerReader(ServiceSource([Endpoint(chain.rpc_url)]), deployment_of(chain))

    def open_offline(self, chain: ChainSettings) -> LedgerReader | None:
        if chain.devnet_folder is None or not (chain.devnet_folder / FILE_NAME).exists():
            return None
        return LedgerReader(FileSource(chain.devnet_folder), deployment_of(chain))

    def open_connector(self, chain: ChainSettings, signer: LocalSigner) -> LedgerConnector:
        source = ServiceSource([Endpoint(chain.rpc_url)])
        return LedgerConnector(source, deployment_of(chain), signer)

    def deploy(
        self, rpc_url: str, signer: LocalSigner, *, program: str | None = None
    ) -> Deployment:
        refuse_program(self.family, program)
        derived = ServiceSource([Endpoint(rpc_url)]).genesis().deployment()
        return derived.model_copy(update={"family": self.family})

    def local_chain(self, folder: Path, *, port: int = 0) -> PaperChain:
        return PaperChain(folder)
