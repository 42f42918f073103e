"""Which kinds of chain there are: backends, found by their entry point.

A new kind of chain is one file with a class that satisfies :class:`ChainBackend`, named in the
entry-point group ``twopm_flower.chains``; the conformance suite (``tests/conformance``) runs
over all that are registered.
"""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ConfigError
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.fields import checksum_address

GROUP = "twopm_flower.chains"

KeyKind = Literal["secp256k1", "ed25519"]


class LocalChain(Protocol):
    """A chain of this machine's own, in a process that ends with this one."""

    @property
    def folder(self) -> Path:
        """Where it keeps its state, and ``account.key``, the key of a funded account."""
        ...

    @property
    def url(self) -> str:
        """Where it answers; known once started."""
        ...

    @property
    def chain_id(self) -> int:
        """Its id; known once started."""
        ...

    @property
    def port(self) -> int:
        """The port that it listens on; known once started."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        ...

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        ...

    @property
    def signer(self) -> Any:
        """Signs for the funded account."""
        ...

    def new_account(self) -> Any:
        """Return a signer for a new account that can pay for what it does; while it runs."""
        ...

    def start(self) -> Self:
        """Start it and wait until it answers."""
        ...

    def stop(self) -> None:
        """End it in good order; its state stays."""
        ...

    def kill(self) -> None:
        """End it as a crash would."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ChainBackend(Protocol):
    """One kind of chain.

    Attributes
    ----------
    family : str
        Its name in settings, deployments and ``--chain``.
    key_kind : {"secp256k1", "ed25519"}
        The kind of key that its accounts have.
    """

    family: str
    key_kind: KeyKind

    def open_signer(self, key: Path, *, password_file: Path | None = None) -> Any:
        """Return a signer for an account whose key is in a file.

        Raises
        ------
        SignerError
            The file is missing, readable by others, or holds no key of this kind.
        """
        ...

    def open_reader(self, chain: ChainSettings) -> ChainReader:
        """Return a reader of the pinned chain; it connects when first asked."""
        ...

    def open_offline(self, chain: ChainSettings) -> ChainReader | None:
        """Return a reader of a local chain's state that no process serves, or None."""
        ...

    def open_connector(self, chain: ChainSettings, signer: Any) -> ChainConnector:
        """Return a connector for the signer's account; it connects when first asked."""
        ...

    def deploy(self, rpc_url: str, signer: Any, *, program: str | None = None) -> Deployment:
        """Place our contracts on a chain and return where they stand.

        `program` is the address of our program on chains where another tool places it; the
        others refuse one with ConfigError.
        """
        ...

    def local_chain(self, folder: Path, *, port: int = 0) -> LocalChain:
        """Return a local chain in a folder, not started; port 0 is any free one."""
        ...


def families() -> tuple[str, ...]:
    """Return the names of all registered backends, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def backend(family: str) -> ChainBackend:
    """Return a backend by its name.

    Raises
    ------
    ConfigError
        Nobody registered it, or what it needs is not installed.
    """
    for point in entry_points(group=GROUP, name=family):
        try:
            found: ChainBackend = point.load()()
        except ImportError as error:
            raise ConfigError(
                f"the chain backend {family!r} needs {error.name}, which is not installed",
                hint=f"Run: pip install 'twopm-flower[{family}]'",
            ) from error
        return found
    raise ConfigError(
        f"there is no chain backend {family!r}",
        hint=f"Installed are: {', '.join(families())}.",
    )


def refuse_program(family: str, program: str | None) -> None:
    """Raise ConfigError when a program is named to a kind of chain that has none."""
    if program is not None:
        raise ConfigError(
            f"a chain of the family {family} has no program at {program[:100]!r}",
            hint="Leave --program out.",
        )


def deployment_of(chain: ChainSettings) -> Deployment:
    """Return the deployment that an operator pinned, as statements and bundles name it."""
    return Deployment(
        family=chain.family,
        chain_id=chain.chain_id,
        genesis_hash=chain.genesis_hash.lower(),
        program=chain.program,
        node_registry=checksum_address(chain.node_registry),
        task_registry=checksum_address(chain.task_registry),
        data_registry=checksum_address(chain.data_registry),
        receipt_registry=checksum_address(chain.receipt_registry),
    )
