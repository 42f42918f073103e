"""Operator settings: ``$TWOPM_HOME/config.toml`` and ``TWOPM_*`` environment variables.

The environment wins over the file. Secrets never stand in either: a setting names the file
that holds one. Chain endpoint, genesis and contracts come from here and from nowhere else;
no server can change them.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from twopm_flower.errors import ConfigError

CONFIG_FILE = "config.toml"
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ChainSettings(BaseModel):
    """The pinned chain: where it is reached, and what it must turn out to be.

    ``family`` is the chain backend (``evm``, ``solana``, ``ledger``); ``program`` names our
    program where the chain has no addresses of contracts. ``fallback_rpc_urls`` are asked, in
    order, when ``rpc_url`` does not answer. A record counts as confirmed when ``confirmations``
    blocks hold it, its own included. ``devnet_folder`` names the folder of an embedded chain,
    whose database the verifier opens read-only when no node serves it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = "evm"
    rpc_url: str
    fallback_rpc_urls: tuple[str, ...] = ()
    chain_id: Annotated[int, Field(ge=1, lt=2**53)]
    genesis_hash: str
    program: str = ""
    node_registry: str
    task_registry: str
    data_registry: str
    receipt_registry: str
    confirmations: Annotated[int, Field(ge=1, le=1000)] = 1
    timeout_s: Seconds = 10.0
    devnet_folder: Path | None = None


class SignerSettings(BaseModel):
    """An isolated signer.

    ``url`` is ``unix:///path/signer.sock`` or ``https://host:port``; the latter needs
    ``tls_cert`` and ``tls_key``, which this side shows, and ``tls_ca``, which the signer's
    certificate is signed by. ``account`` is the address, or base-58 key, that it has to sign
    for. Paths are relative to the home.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^(unix:///.+|https://[^/]+:\d+/?)$")]
    account: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0


class NodeSettings(BaseModel):
    """A node's own policy.

    ``anchor = "tolerant"`` goes on while at most ``max_unrecorded_rounds`` rounds are not on
    chain; ``"strict"`` waits up to ``anchor_wait_s`` for each. ``identity_key``,
    ``sealing_key`` and ``identity_password_file`` are paths, relative to the home.
    With ``signer`` another process holds the identity key, and ``identity_key`` is not used.
    ``key_cap`` is how many sums this node opens with one key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=64)] = "node"
    identity_key: Path = Path("identity.key")
    identity_password_file: Path | None = None
    signer: SignerSettings | None = None
    sealing_key: Path = Path("sealing.key")
    anchor: Literal["tolerant", "strict"] = "tolerant"
    max_unrecorded_rounds: Annotated[int, Field(ge=0, le=1000)] = 2
    anchor_wait_s: Seconds = 300.0
    exclusion_alarm: Annotated[int, Field(ge=1, le=1000)] = 2
    key_cap: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class CoordinatorSettings(BaseModel):
    """The policy of whoever runs the server.

    ``key`` and ``key_password_file`` are paths, relative to the home; with ``signer`` another
    process holds the key, and they are not used.
    ``train_timeout_s`` and ``evaluate_timeout_s`` bound one exchange; ``nodes_wait_s`` bounds
    the wait for nodes to connect; ``anchor_wait_s`` how long the next round is held when too
    many rounds are not on chain, and how long delivery is tried at the end;
    ``late_limit`` late replies of one node in a row stop the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Path = Path("coordinator.key")
    key_password_file: Path | None = None
    signer: SignerSettings | None = None
    train_timeout_s: Seconds = 300.0
    evaluate_timeout_s: Seconds = 180.0
    nodes_wait_s: Seconds = 60.0
    max_unrecorded_rounds: Annotated[int, Field(ge=0, le=1000)] = 2
    anchor_wait_s: Seconds = 300.0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    late_limit: Annotated[int, Field(ge=1, le=1000)] = 3


class Settings(BaseSettings):
    """All settings of one home."""

    model_config = SettingsConfigDict(
        env_prefix="TWOPM_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
    )

    home: Path
    task: str | None = None
    chain: ChainSettings | None = None
    node: NodeSettings = NodeSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()

    def in_home(self, path: Path | None) -> Path | None:
        """Return where a path that a setting names is, or None where it names none."""
        return None if path is None else self.home / path

    def require_chain(self) -> ChainSettings:
        """Return the pinned chain.

        Raises
        ------
        ConfigError
            No chain is configured.
        """
        if self.chain is None:
            raise ConfigError(
                f"no chain is configured in {self.home / CONFIG_FILE}",
                hint="A coordinator runs 'twopm chain deploy', or 'twopm chain use chain.toml' if "
                "contracts exist; a node's operator 'twopm node init --chain chain.toml'.",
            )
        return self.chain


def default_home() -> Path:
    """Return ``$TWOPM_HOME``, or ``~/.twopm``."""
    return Path(os.environ.get("TWOPM_HOME") or Path.home() / ".twopm").expanduser().absolute()


def make_private_folder(folder: Path) -> None:
    """Make a folder, and every missing one above it, for this user alone.

    ``mkdir(parents=True, mode=0o700)`` makes the ones above with the umask's mode, and a home
    made like that is open to others. Folders that are there already stay as they are.

    Raises
    ------
    OSError
        It cannot be made, or is a file.
    """
    missing = [place for place in folder.parents if not place.exists()]
    for place in (*reversed(missing), folder):
        place.mkdir(mode=0o700, exist_ok=True)


def load_settings(home: Path | None = None) -> Settings:
    """Read the settings of a home.

    Parameters
    ----------
    home : Path, optional
        The home; ``$TWOPM_HOME`` by default.

    Raises
    ------
    ConfigError
        The file cannot be parsed, or a setting has a value that it cannot have.
    """
    folder = default_home() if home is None else home.expanduser().absolute()
    file = folder / CONFIG_FILE

    class _Settings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    try:
        return _Settings(home=folder)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"setting {where!r} in {file} (or its TWOPM_ variable): {first['msg']}",
            hint="See docs/configuration.md for every setting.",
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
