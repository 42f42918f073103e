"""From an operator's settings to the chain: the pinned deployment, a reader, a connector."""

from pathlib import Path

from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.chain.evm import EvmConnector, EvmReader
from twopm_flower.config import ChainSettings
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.fields import checksum_address
from twopm_flower.signer.keystore import LocalSigner


def deployment_of(chain: ChainSettings) -> Deployment:
    """Return the deployment that an operator pinned, as statements and bundles name it."""
    return Deployment(
        chain_id=chain.chain_id,
        genesis_hash=chain.genesis_hash.lower(),
        node_registry=checksum_address(chain.node_registry),
        task_registry=checksum_address(chain.task_registry),
    )


def open_reader(chain: ChainSettings) -> ChainReader:
    """Return a reader of the pinned chain; it connects when first asked."""
    return EvmReader(chain.rpc_url, deployment_of(chain), request_timeout_s=chain.timeout_s)


def open_connector(chain: ChainSettings, key_file: Path) -> ChainConnector:
    """Return a connector that signs with the key in a file of mode 0600.

    Raises
    ------
    ConfigError
        The key file is missing, readable by others, or no key.
    """
    return EvmConnector(
        chain.rpc_url,
        deployment_of(chain),
        LocalSigner.from_file(key_file),
        request_timeout_s=chain.timeout_s,
    )
