"""The ledger as a chain backend: for consortia without a chain, one of whom keeps the order."""

import secrets
from pathlib import Path

from twopm_flower.chain.backends import KeyKind, deployment_of, refuse_program
from twopm_flower.chain.ledger_connector import LedgerConnector
from twopm_flower.chain.ledger_reader import LedgerReader
from twopm_flower.chain.ledger_records import FAMILY
from twopm_flower.chain.ledger_source import FileSource, ServiceSource
from twopm_flower.chain.ledger_store import FILE_NAME
from twopm_flower.chain.local_process import LocalProcess
from twopm_flower.config import ChainSettings
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.base import Signer
from twopm_flower.signer.keystore import LocalSigner


class LedgerBackend:
    """See :class:`~twopm_flower.chain.backends.ChainBackend`."""

    family = FAMILY
    key_kind: KeyKind = "secp256k1"

    def open_signer(self, key: Path, *, password_file: Path | None = None) -> LocalSigner:
        """Return a signer for the account whose key is in a file."""
        return LocalSigner.from_file(key, password_file=password_file)

    def open_reader(self, chain: ChainSettings) -> LedgerReader:
        """Return a reader of the pinned ledger."""
        return LedgerReader(_source(chain), deployment_of(chain))

    def open_offline(self, chain: ChainSettings) -> LedgerReader | None:
        """Return a reader of a ledger's file, when there is one."""
        folder = chain.devnet_folder
        if folder is None or not (folder / FILE_NAME).exists():
            return None
        return LedgerReader(FileSource(folder), deployment_of(chain))

    def open_connector(self, chain: ChainSettings, signer: Signer) -> LedgerConnector:
        """Return a connector for the signer's account."""
        return LedgerConnector(_source(chain), deployment_of(chain), signer)

    def deploy(self, rpc_url: str, signer: Signer, *, program: str | None = None) -> Deployment:
        """Return the deployment that follows from the ledger's genesis; nothing is placed."""
        refuse_program(self.family, program)
        return ServiceSource([rpc_url]).genesis().deployment()

    def local_chain(self, folder: Path, *, port: int = 0) -> "LedgerProcess":
        """Return a ledger in a folder, its service not started."""
        return LedgerProcess(folder, port)


class LedgerProcess(LocalProcess):
    """Runs a ledger's service in a process of its own, which ends with this one.

    Parameters
    ----------
    folder : Path
        The ledger's folder.
    port : int
        The port; 0 lets the system choose.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__("twopm_flower.chain.ledger_service", folder, port)

    def new_account(self) -> LocalSigner:
        """Return a signer for a new account; writing costs nothing."""
        return LocalSigner(secrets.token_bytes(32))


def _source(chain: ChainSettings) -> ServiceSource:
    urls = (chain.rpc_url, *chain.fallback_rpc_urls)
    return ServiceSource(urls, timeout_s=chain.timeout_s)
