"""A run that stops between updates and openings, and what its operators do about the keys."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType

from twopm_flower.app import client_app, server_app
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import QuorumError
from twopm_flower.federated import EncryptedAggregation, LocalGrid
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.federated.home import NodeHome
from twopm_flower.federated.share_files import ShareFiles
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.terms import TaskSettings, read_run_config

ROOT = Path(__file__).parents[2]


class StoppingGrid(LocalGrid):
    """Delivers up to the updates of the first round and loses everything after them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.errors: list[str] = []
        self.trained = False

    def deliver(self, message):
        if self.trained and message.metadata.message_type == MessageType.EVALUATE:
            return None
        self.trained |= message.metadata.message_type == MessageType.TRAIN
        reply = super().deliver(message)
        if reply is not None and reply.has_error():
            self.errors.append(reply.error.reason)
        return reply


@dataclass
class StoppedRun:
    federation: LocalFederation
    data: Path
    config: dict[str, Any]
    task_id: str

    def run(self, *, homes: list[Path]) -> StoppingGrid:
        """Run the task as far as it gets, and return the grid with the nodes' errors."""
        nodes = [
            {"twopm-home": str(home), "data": str(self.data)}
            | {"partition-id": index, "num-partitions": 3}
            for index, home in enumerate(homes)
        ]
        grid = StoppingGrid(client_app.app, nodes, self.config)
        strategy = EncryptedAggregation(
            server_app.strategy_of(self.config),
            task=self.task_id,
            home=self.federation.coordinator,
        )
        initial = {n: Array(a) for n, a in server_app.initial_model(self.config).items()}
        with pytest.raises(QuorumError):
            strategy.start(
                grid=grid,
                initial_arrays=ArrayRecord(initial),
                num_rounds=2,
                train_config=ConfigRecord(server_app.train_config(self.config)),
            )
        return grid


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    data = folder / "student-mat.csv"
    data.write_bytes(format_students(synthetic_students("mat", 90)))
    config = read_run_config(ROOT, {"rounds": 2, "epochs": 1, "trust-mode": "one-time-key"})
    with LocalFederation(folder, 3) as federation:
        task = federation.prepare(
            config,
            TaskSettings(synthetic=True),
            app_bundle=app_bundle_digest(None),
            data=DataSource(data),
        )
        made = StoppedRun(federation, data, config, task.task_id)
        grid = made.run(homes=list(federation.homes.values()))
        assert grid.errors == []
        yield made


@pytest.fixture
def home(stopped, tmp_path):
    """A copy of the dealer's home as the run left it."""
    dealer = next(
        home
        for home in stopped.federation.homes.values()
        if (home / "tasks" / stopped.task_id / "deal.json").exists()
    )
    shutil.copytree(dealer, tmp_path / "home")
    return tmp_path / "home"


def secrets_in(home, task_id):
    names = {file.name for file in NodeHome(home).task(task_id).path.iterdir()}
    stems = ("reader-", "share-", "opening-", "update-", "shared.key", "deal.json", ".")
    return {name for name in names if name.startswith(stems)} - {".lock"}


def doctor(twopm, home):
    findings = twopm("doctor", "--home", home, "--app", home, "--json").json
    return [finding for finding in findings if finding["subject"] == "leftover keys"]


def test_after_a_run_that_stopped_forgetting_deletes_the_one_time_keys(twopm, stopped, home):
    before = secrets_in(home, stopped.task_id)
    assert {"reader-1-1.key", "share-1-1.bin", "shared.key", "update-1-1.frame"} <= before
    outcome = twopm("node", "forget", stopped.task_id[:10], "--home", home, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json == {"task_id": stopped.task_id, "deleted": sorted(before)}
    assert secrets_in(home, stopped.task_id) == set()
    again = twopm("node", "forget", stopped.task_id, "--home", home, "--json")
    assert again.json["deleted"] == []


def test_it_is_told_what_was_deleted_and_what_is_left_to_do(twopm, stopped, home):
    before = secrets_in(home, stopped.task_id)
    outcome = twopm("node", "forget", stopped.task_id, "--home", home)
    assert outcome.status == 0, outcome.err
    assert {line[8:] for line in outcome.out.splitlines() if line.startswith("deleted ")} == before
    assert "Delete copies of the dealt key's file" in outcome.out


def test_a_forgotten_task_is_shown_as_that_and_cannot_be_resumed(twopm, stopped, home):
    twopm("node", "forget", stopped.task_id, "--home", home)
    status = twopm("node", "status", "--home", home)
    assert status.status == 0
    assert "forgotten by its operator" in status.out
    assert "stopped" not in status.out
    resumed = twopm("node", "resume", "--yes", "--home", home)
    assert resumed.status == 1
    assert "forgot" in resumed.err
    assert NodeHome(home).task(stopped.task_id).load_progress().halted
    assert twopm("task", "show", "--home", home).status == 0
    assert twopm("keys", "show", "--home", home).status == 0


def test_a_forgotten_node_stays_out_even_if_it_is_given_the_key_again(
    twopm, stopped, home, tmp_path
):
    deal = tmp_path / "deal.json"
    shutil.copy(NodeHome(home).task(stopped.task_id).path / "deal.json", deal)
    twopm("node", "forget", stopped.task_id, "--home", home)
    assert twopm("keys", "accept", deal, "--home", home).status == 0
    grid = stopped.run(homes=[home, *list(stopped.federation.homes.values())[1:]])
    assert any("forgotten by its operator" in error for error in grid.errors)
    assert secrets_in(home, stopped.task_id) == {"shared.key"}


def test_an_unknown_task_is_an_error(twopm, stopped, home):
    for unknown in ("0x" + "00" * 32, "0x0", "../x"):
        outcome = twopm("node", "forget", unknown, "--home", home)
        assert outcome.status == 1
        assert "task" in outcome.err
    assert twopm("node", "forget", "--home", home).status == 2
    assert "reader-1-1.key" in secrets_in(home, stopped.task_id)


def test_the_doctor_asks_for_it_once_the_task_is_cancelled(twopm, stopped, home):
    assert doctor(twopm, home) == []
    stopped.federation.connector.cancel_task(stopped.task_id, "the run stopped")
    (finding,) = doctor(twopm, home)
    assert finding["state"] == "bad"
    assert finding["remedy"] == f"Run: twopm node forget {stopped.task_id}"
    assert "reader-1-1.key" in finding["detail"]
    assert twopm("node", "forget", stopped.task_id, "--home", home).status == 0
    assert doctor(twopm, home) == []


def test_the_doctor_asks_for_it_where_a_node_missed_the_end_of_a_run(twopm, finished, tmp_path):
    shutil.copytree(finished.homes[1], tmp_path / "home")
    assert doctor(twopm, tmp_path / "home") == []
    ShareFiles(NodeHome(tmp_path / "home").task(finished.task_id).path).make_reader_key(2, 1)
    (finding,) = doctor(twopm, tmp_path / "home")
    assert finding["state"] == "bad"
    assert "finalised" in finding["detail"]
    forgotten = twopm("node", "forget", finished.task_id, "--home", tmp_path / "home", "--json")
    assert {"reader-2-1.key", "shared.key"} <= set(forgotten.json["deleted"])
    out = tmp_path / "model.safetensors"
    assert twopm("model", "export", "--out", out, "--home", tmp_path / "home").status == 0
