"""The EVM as a chain backend: any chain that speaks Ethereum's JSON-RPC, and the embedded one."""

from pathlib import Path
from typing import TYPE_CHECKING

from twopm_flower.chain.backends import KeyKind, deployment_of, refuse_program
from twopm_flower.chain.evm import EvmConnector, EvmReader, deploy
from twopm_flower.config import ChainSettings
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.base import Signer
from twopm_flower.signer.keystore import LocalSigner

if TYPE_CHECKING:
    from twopm_flower.chain.devnet import DevnetProcess


class EvmBackend:
    """See :class:`~twopm_flower.chain.backends.ChainBackend`."""

    family = "evm"
    key_kind: KeyKind = "secp256k1"

    def open_signer(self, key: Path, *, password_file: Path | None = None) -> LocalSigner:
        """Return a signer for the account whose key is in a file."""
        return LocalSigner.from_file(key, password_file=password_file)

    def open_reader(self, chain: ChainSettings) -> EvmReader:
        """Return a reader of the pinned chain."""
        return EvmReader(_endpoints(chain), deployment_of(chain), request_timeout_s=chain.timeout_s)

    def open_offline(self, chain: ChainSettings) -> EvmReader | None:
        """Return a reader of an embedded chain's database, when there is one."""
        folder = chain.devnet_folder
        if folder is None or not (folder / "chain.sqlite").exists():
            return None
        from twopm_flower.chain.devnet import open_read_only  # noqa: PLC0415  # py-evm: as below

        return EvmReader(open_read_only(folder), deployment_of(chain))

    def open_connector(self, chain: ChainSettings, signer: Signer) -> EvmConnector:
        """Return a connector for the signer's account."""
        return EvmConnector(
            _endpoints(chain), deployment_of(chain), signer, request_timeout_s=chain.timeout_s
        )

    def deploy(self, rpc_url: str, signer: Signer, *, program: str | None = None) -> Deployment:
        """Deploy the contracts."""
        refuse_program(self.family, program)
        return deploy(rpc_url, signer)

    def local_chain(self, folder: Path, *, port: int = 0) -> "DevnetProcess":
        """Return the embedded chain in a folder, not started."""
        # py-evm takes most of a second, which no node's message should wait for.
        from twopm_flower.chain.devnet import DevnetProcess  # noqa: PLC0415

        return DevnetProcess(folder, port)


def _endpoints(chain: ChainSettings) -> tuple[str, ...]:
    return (chain.rpc_url, *chain.fallback_rpc_urls)
