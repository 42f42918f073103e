"""From an operator's settings to the chain: the pinned deployment, a reader, a connector."""

from typing import Any

from twopm_flower.chain.backends import backend
from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.config import ChainSettings, Settings
from twopm_flower.errors import ConfigError
from twopm_flower.signer.opening import open_signer


def open_reader(chain: ChainSettings) -> ChainReader:
    """Return a reader of the pinned chain; it connects when first asked."""
    return backend(chain.family).open_reader(chain)


def coordinator_signer(settings: Settings, *, family: str = "evm") -> Any:
    """Return a signer for the account that coordinates and pays, on one family of chains.

    Raises
    ------
    ConfigError
        No key is configured, or it cannot be used.
    """
    isolated = settings.coordinator.signer
    if isolated is not None:
        return open_signer(isolated, settings.home, key_kind=backend(family).key_kind)
    file = settings.home / settings.coordinator.key
    if not file.exists():
        raise ConfigError(
            f"this home has no coordinator's key: {file} does not exist",
            hint="Run 'twopm chain use chain.toml --key FILE', or name a signer in config.toml.",
        )
    password_file = settings.in_home(settings.coordinator.key_password_file)
    return backend(family).open_signer(file, password_file=password_file)


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
    signer = coordinator_signer(settings, family=chain.family)
    return backend(chain.family).open_connector(chain, signer)
