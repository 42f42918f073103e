"""From an operator's settings to the chain: the pinned deployment, a reader, a connector."""

from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.chain.evm import EvmConnector, EvmReader
from twopm_flower.config import ChainSettings, Settings
from twopm_flower.errors import ConfigError
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


def coordinator_signer(settings: Settings) -> LocalSigner:
    """Return the account that coordinates and pays.

    Raises
    ------
    ConfigError
        No key is configured, or it cannot be used.
    """
    file = settings.home / settings.coordinator.key
    if not file.exists():
        raise ConfigError(
            f"this home has no coordinator's key: {file} does not exist",
            hint="Run 'twopm chain use chain.toml --key FILE'.",
        )
    password_file = settings.in_home(settings.coordinator.key_password_file)
    return LocalSigner.from_file(file, password_file=password_file)


def open_connector(settings: Settings, chain: ChainSettings | None = None) -> ChainConnector:
    """Return a connector that signs with the coordinator's key; it connects when first asked.

    Parameters
    ----------
    settings : Settings
        The coordinator's.
    chain : ChainSettings, optional
        Another chain than the pinned one.

    Raises
    ------
    ConfigError
        No chain or no key is configured, or the key cannot be used.
    """
    chain = settings.require_chain() if chain is None else chain
    return EvmConnector(
        chain.rpc_url,
        deployment_of(chain),
        coordinator_signer(settings),
        request_timeout_s=chain.timeout_s,
    )
