"""Placing the contracts on a chain, and making a home the coordinator's."""

from pathlib import Path

from twopm_flower.chain.backends import backend
from twopm_flower.config import ChainSettings, load_settings
from twopm_flower.errors import ConfigError
from twopm_flower.federated.home import write_atomically
from twopm_flower.node.chain_file import chain_toml, make_chain_settings
from twopm_flower.node.provision import configure_home, make_home


def deploy_contracts(
    home: Path,
    rpc_url: str,
    key: Path,
    out: Path,
    *,
    password_file: Path | None = None,
    devnet_folder: Path | None = None,
    family: str = "evm",
    program: str | None = None,
) -> ChainSettings:
    """Place both contracts, write the public chain file, and pin the chain in this home.

    Parameters
    ----------
    home : Path
        The coordinator's.
    rpc_url : str
        The chain's JSON-RPC endpoint.
    key : Path
        Key file of the account that pays.
    out : Path
        Receives the public ``chain.toml``.
    password_file : Path, optional
        The password of an encrypted key.
    devnet_folder : Path, optional
        The embedded chain's folder. It stays out of the public file: it is of no use elsewhere.
    family : str
        The chain backend.
    program : str, optional
        The address of our program, where another tool places it.

    Raises
    ------
    ConfigError
        The home pins a chain already or cannot be used, or `out` is a folder; nothing is
        deployed.
    ChainError
        The chain cannot be used.
    """
    pinned = load_settings(home).chain
    if pinned is not None:
        raise ConfigError(
            f"{home} pins a chain already: {pinned.rpc_url}, contract {pinned.task_registry}",
            hint="Use another home for other contracts: TWOPM_HOME=FOLDER.",
        )
    chosen = backend(family)
    signer = chosen.open_signer(key, password_file=password_file)
    # Whatever can be refused is refused here: the next line spends.
    make_home(home)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder", hint="Name the file: --out chain.toml.")
    deployment = chosen.deploy(rpc_url, signer, program=program)
    write_atomically(out, chain_toml(make_chain_settings(rpc_url, deployment)).encode())
    folder = None if devnet_folder is None else devnet_folder.absolute()
    chain = make_chain_settings(rpc_url, deployment, devnet_folder=folder)
    configure_home(home, chain, coordinator_key=key, password_file=password_file)
    return chain
