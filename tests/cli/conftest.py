"""A finished run of three nodes, made once by the real app in this process."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from twopm_flower.cli import run
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.terms import TaskSettings, read_run_config

ROOT = Path(__file__).parents[2]


@dataclass
class FinishedRun:
    folder: Path
    coordinator: Path
    homes: list[Path]
    task_id: str
    chain: Any = field(repr=False)

    @property
    def bundle(self) -> Path:
        return self.coordinator / "runs" / self.task_id / "bundle.json"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    from flwr.app import Array, ArrayRecord, ConfigRecord

    from twopm_flower.app import client_app, server_app
    from twopm_flower.federated import EncryptedAggregation, LocalGrid

    folder = tmp_path_factory.mktemp("finished")
    data = folder / "student-mat.csv"
    data.write_bytes(format_students(synthetic_students("mat", 90)))
    config = read_run_config(ROOT, {"rounds": 2, "epochs": 3})
    with LocalFederation(folder, 3) as federation:
        task = federation.prepare(
            config,
            TaskSettings(synthetic=True),
            app_bundle=app_bundle_digest(None),
            data=DataSource(data),
        )
        homes = list(federation.homes.values())
        grid = LocalGrid(
            client_app.app,
            [
                {
                    "twopm-home": str(home),
                    "data": str(data),
                    "partition-id": index,
                    "num-partitions": 3,
                }
                for index, home in enumerate(homes)
            ],
            config,
        )
        strategy = EncryptedAggregation(
            server_app.strategy_of(config), task=task.task_id, home=federation.coordinator
        )
        initial = {n: Array(a) for n, a in server_app.initial_model(config).items()}
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(initial),
            num_rounds=2,
            train_config=ConfigRecord(server_app.train_config(config)),
        )
        yield FinishedRun(folder, federation.coordinator, homes, task.task_id, federation.chain)


@pytest.fixture
def own_copy(finished: FinishedRun, tmp_path: Path) -> Path:
    """A coordinator's home that a test may spoil."""
    shutil.copytree(finished.coordinator, tmp_path / "coordinator")
    return tmp_path / "coordinator"


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def twopm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call
