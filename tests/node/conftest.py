"""A chain in this process, and homes on it, for the tests of provisioning."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from twopm_flower.chain.devnet import Devnet
from twopm_flower.chain.evm import EvmConnector, EvmReader, deploy
from twopm_flower.config import ChainSettings
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.node.chain_file import make_chain_settings
from twopm_flower.node.coordinate import Invitation, admit, create_task, start_task
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.membership import accept_key, confirm_task, deal_key, join_task
from twopm_flower.node.provision import configure_home, init_node, trust
from twopm_flower.node.terms import TaskSettings, build_student_terms, read_run_config
from twopm_flower.records.roster import Roster


@dataclass
class Chain:
    settings: ChainSettings
    connector: EvmConnector
    reader: EvmReader
    key: Path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    with Devnet(folder) as devnet:
        deployment = deploy(devnet.rpc, devnet.signer)
        yield Chain(
            settings=make_chain_settings("http://127.0.0.1:9", deployment, devnet_folder=folder),
            connector=EvmConnector(devnet.rpc, deployment, devnet.signer),
            reader=EvmReader(devnet.rpc, deployment),
            key=folder / "account.key",
        )


@pytest.fixture(scope="session")
def students_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("students") / "student-mat.csv"
    file.write_bytes(format_students(synthetic_students("mat", 90)))
    return file


def app_config(**changes: Any) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    return read_run_config(root, {name.replace("_", "-"): v for name, v in changes.items()})


@dataclass
class Federation:
    """A coordinator and nodes that trust each other, before anybody joined anything."""

    chain: Chain
    coordinator: Path
    homes: list[Path]
    data: Path
    prepared: "Prepared"

    def create(self, settings: TaskSettings | None = None, **run_config: Any) -> Invitation:
        terms, initial = build_student_terms(
            app_config(**run_config), settings or TaskSettings(), app_bundle=app_bundle_digest(None)
        )
        return create_task(self.coordinator, self.chain.connector, terms, initial)

    def join(self, invitation: Invitation, index: int) -> None:
        source = DataSource(self.data, index, len(self.homes))
        request = join_task(self.homes[index], invitation, source, reader=self.chain.reader)
        admit(self.coordinator, self.chain.connector, [request])

    def start(self, invitation: Invitation) -> Roster:
        for index in range(len(self.homes)):
            self.join(invitation, index)
        return start_task(self.coordinator, self.chain.connector, invitation.task_id)

    def prepare(self, **run_config: Any) -> Invitation:
        invitation = self.create(**run_config)
        roster = self.start(invitation)
        for home in self.homes:
            confirm_task(home, invitation.task_id, roster, reader=self.chain.reader)
        if invitation.terms.trust_mode != "plaintext":
            dealt = deal_key(self.homes[0], invitation.task_id)
            for home in self.homes[1:]:
                accept_key(home, dealt)
        return invitation

    def ready(self) -> Invitation:
        """Put the homes into the state before the first round; the steps are taken once."""
        for home in (self.coordinator, *self.homes):
            shutil.rmtree(home)
            shutil.copytree(self.prepared.folder / home.name, home)
        return self.prepared.invitation


@dataclass
class Prepared:
    """Homes and a task that tests copy, because making them takes seconds."""

    folder: Path
    invitation: Invitation | None = None


def set_up(folder: Path, chain: Chain, nodes: int) -> None:
    configure_home(folder / "coordinator", chain.settings, coordinator_key=chain.key)
    names = [f"node-{index}" for index in range(nodes)]
    cards = {name: init_node(folder / name, name=name, chain=chain.settings) for name in names}
    for name in names:
        for other in set(names) - {name}:
            trust(folder / name, cards[other])


@pytest.fixture(scope="session")
def prepared(
    chain: Chain, students_csv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    set_up(folder, chain, 3)
    stage = Prepared(folder)
    homes = [folder / f"node-{index}" for index in range(3)]
    federation = Federation(chain, folder / "coordinator", homes, students_csv, stage)
    shutil.copytree(folder, folder.with_name("fresh"))
    stage.invitation = federation.prepare()
    return stage


@pytest.fixture
def federate(
    chain: Chain, students_csv: Path, tmp_path: Path, prepared: Prepared
) -> Callable[[int], Federation]:
    def make(nodes: int = 3) -> Federation:
        if nodes == 3:
            shutil.copytree(prepared.folder.with_name("fresh"), tmp_path, dirs_exist_ok=True)
        else:
            set_up(tmp_path, chain, nodes)
        homes = [tmp_path / f"node-{index}" for index in range(nodes)]
        return Federation(chain, tmp_path / "coordinator", homes, students_csv, prepared)

    return make
