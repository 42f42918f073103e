"""A chain in this process, and homes on it, for the tests of provisioning."""

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

    def create(self, settings: TaskSettings | None = None, **run_config: Any) -> Invitation:
        terms, initial = build_student_terms(
            app_config(**run_config), settings or TaskSettings(), app_bundle=app_bundle_digest(None)
        )
        return create_task(self.coordinator, self.chain.connector, terms, initial)

    def join(self, invitation: Invitation, index: int) -> None:
        source = DataSource(self.data, index, len(self.homes))
        request = join_task(self.homes[index], invitation, source, reader=self.chain.reader)
        admit(self.coordinator, self.chain.connector, request)

    def start(self, invitation: Invitation) -> Roster:
        for index in range(len(self.homes)):
            self.join(invitation, index)
        return start_task(self.coordinator, self.chain.connector, invitation.task_id)

    def ready(self, settings: TaskSettings | None = None, **run_config: Any) -> Invitation:
        invitation = self.create(settings, **run_config)
        roster = self.start(invitation)
        for home in self.homes:
            confirm_task(home, invitation.task_id, roster, reader=self.chain.reader)
        if invitation.terms.trust_mode != "plaintext":
            dealt = deal_key(self.homes[0], invitation.task_id)
            for home in self.homes[1:]:
                accept_key(home, dealt)
        return invitation


@pytest.fixture
def federate(chain: Chain, students_csv: Path, tmp_path: Path) -> Callable[[int], Federation]:
    def make(nodes: int = 3) -> Federation:
        coordinator = tmp_path / "coordinator"
        configure_home(coordinator, chain.settings, coordinator_key=chain.key)
        homes = [tmp_path / f"node-{index}" for index in range(nodes)]
        cards = [
            init_node(home, name=f"node-{index}", chain=chain.settings)
            for index, home in enumerate(homes)
        ]
        for index, home in enumerate(homes):
            for peer, card in enumerate(cards):
                if peer != index:
                    trust(home, card)
        return Federation(chain, coordinator, homes, students_csv)

    return make
