"""The public file that says which chain and contracts to believe, and a reader for it."""

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from twopm_flower.chain.backends import backend
from twopm_flower.chain.base import ChainReader
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ChainUnavailable, ConfigError
from twopm_flower.records.bundle import Deployment


def read_chain_file(path: Path) -> ChainSettings:
    """Read a public ``chain.toml``.

    Raises
    ------
    ConfigError
        Missing, not TOML, or not the description of a chain.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            hint="The coordinator's 'twopm chain deploy' writes it.",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} is no chain file, which is TOML: {error}",
            hint="The coordinator's 'twopm chain deploy' writes it.",
        ) from error
    try:
        return ChainSettings.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path}: {where}: {first['msg']}",
            hint="The coordinator's 'twopm chain deploy' writes one.",
        ) from error


def chain_toml(chain: ChainSettings) -> str:
    """Return the TOML lines that describe a chain."""
    values = chain.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    # A JSON string without \u escapes of surrogates is a TOML basic string.
    return "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in values.items())


def make_chain_settings(
    rpc_url: str, deployment: Deployment, *, devnet_folder: Path | None = None
) -> ChainSettings:
    """Return the settings that pin a deployment behind an endpoint."""
    return ChainSettings(
        rpc_url=rpc_url,
        **deployment.model_dump(),
        devnet_folder=devnet_folder,
    )


def where_read(chain: ChainSettings, endpoint: str) -> str:
    """Return where a reader of :func:`open_any_reader` reads, for people.

    Parameters
    ----------
    chain : ChainSettings
    endpoint : str
        What the reader's status says.
    """
    if any(url in endpoint for url in (chain.rpc_url, *chain.fallback_rpc_urls)):
        return endpoint
    return f"the files in {chain.devnet_folder}, for no endpoint answers"


def open_any_reader(chain: ChainSettings) -> ChainReader:
    """Return a reader of the pinned chain, which has answered and is the right one.

    When the endpoint does not answer and the chain is an embedded one, its database is opened
    read-only instead.

    Raises
    ------
    ChainUnavailable, WrongChain
        Nobody answers, or somebody else does.
    """
    reader = backend(chain.family).open_reader(chain)
    try:
        reader.check()
    except ChainUnavailable:
        offline = backend(chain.family).open_offline(chain)
        if offline is None:
            raise
        reader = offline
        reader.check()
    return reader
