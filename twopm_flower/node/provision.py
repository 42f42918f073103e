"""Setting up homes: a node's keys and card, a coordinator's account, and whom a node trusts."""

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from twopm_flower.chain.backends import deployment_of
from twopm_flower.config import (
    CONFIG_FILE,
    ChainSettings,
    CoordinatorSettings,
    NodeSettings,
    load_settings,
)
from twopm_flower.errors import ConfigError
from twopm_flower.federated.ceremony import node_card
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.node.chain_file import chain_toml
from twopm_flower.node.handed_over import CARD, read_handed_over
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.records.bundle import NodeCard
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.statements import Registration, Signed
from twopm_flower.signer.keystore import LocalSigner, create_key_file, read_password


@dataclass(frozen=True)
class NodeIdentity:
    """Who a node is, for people.

    Attributes
    ----------
    name, address, sealing_key : str
        Its name, chain address and X25519 key.
    fingerprint : str
        Short enough to read out over a telephone; see :func:`card_fingerprint`.
    """

    name: str
    address: str
    sealing_key: str
    fingerprint: str


def init_node(
    home: Path, *, name: str, chain: ChainSettings, password_file: Path | None = None
) -> NodeCard:
    """Make a node's keys and settings, and return the card that it hands to others.

    Doing it again completes what is missing and never replaces a key.

    Parameters
    ----------
    home : Path
        The node's home; created with mode 0700.
    name : str
        What people call the node.
    chain : ChainSettings
        The chain to pin.
    password_file : Path, optional
        Encrypt the identity key with the first line of this file, and open it with that.

    Raises
    ------
    ConfigError
        The home is configured for another chain, name or password file; or the password file
        cannot be used, or does not open the key that is there.
    """
    before = load_settings(home).node
    identity = home / before.identity_key
    if password_file is not None and before.signer is not None:
        raise ConfigError(
            f"an isolated signer at {before.signer.url} holds this node's key",
            hint="Leave --password-file out: it is the signer's.",
        )
    if password_file is not None and identity.exists():
        LocalSigner.from_file(identity, password_file=password_file)
    elif password_file is not None:
        read_password(password_file)
    configure_home(home, chain, name=name, password_file=password_file)
    node = NodeHome(home)
    if node.settings.node.signer is None and not identity.exists():
        kept = node.settings.in_home(node.settings.node.identity_password_file)
        create_key_file(identity, password_file=kept)
    sealing = home / node.settings.node.sealing_key
    if not sealing.exists():
        SealingKey.create().save(sealing)
    return make_card(home)


def make_card(home: Path, *, nonce: int = 0) -> NodeCard:
    """Return the card of the node in a home, freshly signed.

    Parameters
    ----------
    home : Path
    nonce : int
        What the node registry expects; 0 before the first registration.
    """
    node = NodeHome(home)
    require_node(node)
    deployment = deployment_of(node.settings.require_chain())
    name, key = node.settings.node.name, node.sealing_key.public
    return node_card(name, node.signer, key, deployment, nonce=nonce)


def configure_home(
    home: Path,
    chain: ChainSettings,
    *,
    name: str | None = None,
    coordinator_key: Path | None = None,
    password_file: Path | None = None,
) -> None:
    """Write ``config.toml``, or add to it what it does not say yet.

    Parameters
    ----------
    home : Path
    chain : ChainSettings
        The chain to pin.
    name : str, optional
        The node's name.
    coordinator_key : Path, optional
        Key file of the account that coordinates.
    password_file : Path, optional
        The password of the coordinator's key, where that is given, or else of the node's.

    Raises
    ------
    ConfigError
        It says something else already, and is left as it is; or the home is inside a
        Flower app.
    """
    if password_file is not None and coordinator_key is not None:
        LocalSigner.from_file(coordinator_key, password_file=password_file)
    make_home(home)
    file = home / CONFIG_FILE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    settings = load_settings(home)
    if settings.chain is None:
        text += f"\n[chain]\n{chain_toml(chain)}"
    elif settings.chain != chain:
        raise ConfigError(
            f"{file} (or a TWOPM_CHAIN variable) pins another chain: "
            f"{settings.chain.rpc_url}, chain id {settings.chain.chain_id}",
            hint="Edit its [chain] section, or use another home: TWOPM_HOME=FOLDER.",
        )
    node: dict[str, str | Path | None] = {"name": name}
    coordinator: dict[str, str | Path | None] = {"key": coordinator_key}
    if coordinator_key is None:
        node["identity_password_file"] = password_file
    else:
        coordinator["key_password_file"] = password_file
    text += _section(file, text, "node", _unsaid(home, settings.node, node))
    text += _section(file, text, "coordinator", _unsaid(home, settings.coordinator, coordinator))
    write_atomically(file, text.lstrip().encode())
    load_settings(home)


def require_node(node: NodeHome) -> None:
    """Raise ConfigError unless a node was set up in this home."""
    if not node.exists:
        raise ConfigError(
            f"there is no node in {node.path}",
            hint="Run 'twopm node init --name NAME --chain chain.toml'.",
        )


def card_fingerprint(registration: Registration) -> str:
    """Return 32 hexadecimal digits in groups of four over address and sealing key.

    128 bits: nobody finds a second pair of keys with the same one.
    """
    digest = tagged_digest(
        "card-fingerprint/v1",
        bytes.fromhex(registration.node[2:]),
        bytes.fromhex(registration.sealing_key[2:]),
    )[2:34]
    return " ".join(digest[start : start + 4] for start in range(0, 32, 4))


def identity_of(card: NodeCard) -> NodeIdentity:
    """Return what to show of a card."""
    statement = card.registration.statement
    return NodeIdentity(
        name=card.name,
        address=statement.node,
        sealing_key=statement.sealing_key,
        fingerprint=card_fingerprint(statement),
    )


def check_card(home: Path, card: NodeCard) -> Signed[Registration]:
    """Check that a card was signed by its node, for the node registry that this home pins.

    Raises
    ------
    SignatureError
        It was not; or it was signed for another chain or contract.
    """
    deployment = deployment_of(load_settings(home).require_chain())
    card.registration.check(deployment.registry_domain)
    return card.registration


def trust(home: Path, card: NodeCard, *, replace: bool = False) -> NodeIdentity:
    """Pin another node's address and sealing key.

    Parameters
    ----------
    home : Path
    card : NodeCard
        Handed over by the other operator.
    replace : bool
        Allow another sealing key than the one that is pinned.

    Raises
    ------
    SignatureError
        The node did not sign the card for this chain.
    ConfigError
        The node is pinned with another sealing key.
    """
    check_card(home, card)
    statement = card.registration.statement
    known = NodeHome(home).peers().get(statement.node)
    pinned = None if known is None else known.registration.statement.sealing_key
    if pinned not in (None, statement.sealing_key) and not replace:
        raise ConfigError(
            f"{statement.node} is trusted with the sealing key {pinned}; the card has "
            f"{statement.sealing_key}",
            hint="Ask its operator over another channel, then run 'twopm node untrust' first.",
        )
    write_atomically(_peer_file(home, statement.node), card.to_bytes())
    return identity_of(card)


def untrust(home: Path, node: str) -> NodeIdentity:
    """Forget a node, by address or by name.

    Raises
    ------
    ConfigError
        No such node is trusted, or several have that name.
    """
    found = [c for a, c in NodeHome(home).peers().items() if node.lower() in (a.lower(), c.name)]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} trusted nodes are called {node!r}",
            hint="'twopm node show' lists them; pass the address.",
        )
    _peer_file(home, found[0].registration.node).unlink()
    return identity_of(found[0])


def read_card(path: Path) -> NodeCard:
    """Read a card file."""
    return read_handed_over(path, CARD, NodeCard)


def _peer_file(home: Path, address: str) -> Path:
    return home / "peers" / f"{address}.json"


def enclosing_app(folder: Path) -> Path | None:
    """Return the Flower app that a folder is, or lies in, or None."""
    place = folder.absolute()
    for candidate in (place, *place.parents):
        try:
            table = tomllib.loads((candidate / "pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if "flwr" in table.get("tool", {}):
            return candidate
    return None


def make_home(home: Path) -> None:
    """Make the folder of a home, for its owner alone.

    Raises
    ------
    ConfigError
        It would be inside a Flower app, or cannot be made.
    """
    app = enclosing_app(home)
    if app is not None:
        raise ConfigError(
            f"the home {home} would be inside the Flower app {app}",
            hint="Choose a home elsewhere: what is in an app's folder may be sent to every node.",
        )
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"the home {home} cannot be made: {error.strerror}",
            hint="Name another folder with --home or TWOPM_HOME.",
        ) from error
    if os.name == "posix" and home.stat().st_mode & 0o077:
        # An operator may have made the folder: what it holds from now on is for nobody else.
        home.chmod(0o700)


def _unsaid(
    home: Path, settings: NodeSettings | CoordinatorSettings, wanted: dict[str, str | Path | None]
) -> dict[str, str]:
    unsaid: dict[str, str] = {}
    for key, value in wanted.items():
        known = getattr(settings, key)
        if isinstance(value, Path):
            same = known is not None and (home / known).absolute() == value.absolute()
            unsaid |= {} if same else {key: str(value.absolute())}
        elif value not in (None, known):
            unsaid[key] = value
    return unsaid


def _section(file: Path, text: str, section: str, values: dict[str, str]) -> str:
    if not values:
        return ""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    if f"[{section}]" in text:
        raise ConfigError(
            f"{file} has a [{section}] section without {', '.join(lines)}",
            hint="Edit it: add that there.",
        )
    return "\n".join([f"\n[{section}]", *lines, ""])
