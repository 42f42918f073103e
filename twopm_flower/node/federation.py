"""A whole federation on this machine: a chain, a coordinator and nodes, each in its own home.

Every step is the one that an operator takes with ``twopm`` (``docs/deploy.md``): the same
functions, called once per home. Nothing but public files goes from one home to another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from twopm_flower.chain.backends import LocalChain, backend
from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ConfigError
from twopm_flower.federated.chain_access import open_reader
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.chain_file import make_chain_settings
from twopm_flower.node.coordinate import (
    Invitation,
    admit,
    create_task,
    keep_key_deal,
    start_task,
)
from twopm_flower.node.lifetime import Lifetime
from twopm_flower.node.local_data import DataSource, load_choice
from twopm_flower.node.membership import accept_key, confirm_task, deal_key, join_task
from twopm_flower.node.provision import configure_home, init_node, trust
from twopm_flower.node.terms import TaskSettings, build_student_terms
from twopm_flower.records.bundle import NodeCard
from twopm_flower.records.roster import Roster
from twopm_flower.records.terms import TaskTerms

NODE_NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")


@dataclass(frozen=True)
class Task:
    """A task that is ready to run.

    Attributes
    ----------
    task_id : str
    invitation : Invitation
    roster : Roster
        Frozen and confirmed by every node.
    dealer : str or None
        Name of the node that dealt the shared key.
    labels : dict of str to str
        Which data each node joined with, by its name.
    """

    task_id: str
    invitation: Invitation
    roster: Roster
    dealer: str | None
    labels: dict[str, str] = field(default_factory=dict)


class LocalFederation(Lifetime):
    """A chain, a coordinator's home and nodes' homes below one folder.

    Parameters
    ----------
    folder : Path
        Receives ``chain``, ``coordinator`` and one folder per node.
    nodes : int
        How many nodes, from 2 to 10.
    told : callable, optional
        Is told each step in one line, as it is done; may be replaced at any time.
    family : str
        The chain backend.

    Raises
    ------
    ConfigError
        Too many or too few nodes.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int,
        *,
        told: Callable[[str], None] | None = None,
        family: str = "evm",
    ) -> None:
        if not 2 <= nodes <= len(NODE_NAMES):
            raise ConfigError(f"there can be 2 to {len(NODE_NAMES)} nodes here, not {nodes}")
        self.folder = folder.absolute()
        self.coordinator = self.folder / "coordinator"
        self.homes = {name: self.folder / name for name in NODE_NAMES[:nodes]}
        self.chain_folder = self.folder / "chain"
        self.backend = backend(family)
        self.devnet: LocalChain = self.backend.local_chain(self.chain_folder)
        self.told = told or (lambda _: None)
        self._chain: ChainSettings | None = None

    @property
    def chain(self) -> ChainSettings:
        """The chain and contracts that everybody pins."""
        if self._chain is None:
            raise ConfigError("the federation has not been started")
        return self._chain

    def start(self) -> Self:
        """Start the chain, place the contracts, and set up every home."""
        self.devnet.start()
        signer = self.devnet.signer
        deployment = self.backend.deploy(self.devnet.url, signer)
        self.told(f"{self.backend.family} chain at {self.devnet.url}, contracts placed")
        self._chain = make_chain_settings(
            self.devnet.url, deployment, devnet_folder=self.chain_folder
        )
        self.connector: ChainConnector = self.backend.open_connector(self._chain, signer)
        self._make_homes(self._chain)
        return self

    def beside(self, folder: Path) -> "LocalFederation":
        """Return another federation on this one's chain, as long as that runs.

        Its homes are its own, below `folder`, and so are its nodes' keys; the coordinator pays
        from the same account.
        """
        other = LocalFederation(folder, len(self.homes), family=self.backend.family)
        other.devnet, other.chain_folder = self.devnet, self.chain_folder
        other._chain, other.connector = self.chain, self.connector
        other._make_homes(self.chain)
        return other

    def prepare(
        self,
        run_config: Mapping[str, Any],
        settings: TaskSettings,
        *,
        app_bundle: str,
        data: Sequence[DataSource] | DataSource = DataSource(),  # noqa: B008  # frozen
    ) -> Task:
        """Create a task on the student data and bring all nodes into it, key included.

        Parameters
        ----------
        run_config : mapping
            The run configuration that the app will be submitted with.
        settings : TaskSettings
        app_bundle : str
            Digest of the app that will be submitted.
        data : DataSource or sequence of DataSource
            Where each node finds its rows; one source is divided among all.
        """
        terms, initial = build_student_terms(run_config, settings, app_bundle=app_bundle)
        return self.prepare_terms(terms, initial, data=data)

    def prepare_terms(
        self,
        terms: TaskTerms,
        initial: Mapping[str, npt.NDArray[Any]],
        *,
        data: Sequence[DataSource] | DataSource,
    ) -> Task:
        """Create a task of any terms and bring all nodes into it, key included.

        Parameters
        ----------
        terms : TaskTerms
        initial : mapping of str to ndarray
            The initial model that the terms name.
        data : DataSource or sequence of DataSource
            Where each node finds its rows; one source is divided among all.
        """
        invitation = create_task(self.coordinator, self.connector, terms, initial)
        task_id = invitation.task_id
        self.told(f"task {task_id[:10]}... created, terms {terms.digest[:10]}... on chain")
        reader = open_reader(self.chain)
        sources = self._sources(data)
        requests = {
            name: join_task(home, invitation, sources[name], reader=reader)
            for name, home in self.homes.items()
        }
        admit(self.coordinator, self.connector, list(requests.values()))
        labels = {}
        for name, home in self.homes.items():
            choice = load_choice(NodeHome(home).task(task_id))
            labels[name] = choice.label
            self.told(f"{name} joined with {choice.samples} rows, committed to by a salted digest")
        roster = start_task(self.coordinator, self.connector, task_id)
        for home in self.homes.values():
            confirm_task(home, task_id, roster, reader=reader)
        self.told(f"roster of {len(roster.members)} frozen, confirmed by every node")
        dealer = None
        if terms.trust_mode != "plaintext":
            dealer = self._deal(task_id, roster)
        return Task(task_id, invitation, roster, dealer, labels)

    def reader(self) -> ChainReader:
        """Return a reader of the federation's chain."""
        return open_reader(self.chain)

    def stop(self) -> None:
        """Stop the chain; the homes stay."""
        self.devnet.stop()

    def _make_homes(self, chain: ChainSettings) -> None:
        account = self.chain_folder / "account.key"
        configure_home(self.coordinator, chain, coordinator_key=account)
        cards: dict[str, NodeCard] = {}
        for name, home in self.homes.items():
            cards[name] = init_node(home, name=name, chain=chain)
        for name, home in self.homes.items():
            for other, card in cards.items():
                if other != name:
                    trust(home, card)
        self.told(f"{len(cards)} nodes made their keys and trust each other's cards")

    def _sources(self, data: Sequence[DataSource] | DataSource) -> dict[str, DataSource]:
        if isinstance(data, DataSource):
            count = len(self.homes)
            data = [replace(data, partition=index, partitions=count) for index in range(count)]
        return dict(zip(self.homes, data, strict=True))

    def _deal(self, task_id: str, roster: Roster) -> str:
        address = {NodeHome(home).signer.address: name for name, home in self.homes.items()}
        dealer = address[roster.dealer.node]
        dealt = deal_key(self.homes[dealer], task_id)
        for name, home in self.homes.items():
            if name != dealer:
                accept_key(home, dealt)
        keep_key_deal(self.coordinator, task_id, dealt)
        self.told(f"{dealer} dealt the key, sealed to {len(self.homes) - 1} others")
        return dealer
