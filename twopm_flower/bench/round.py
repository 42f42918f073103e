"""``twopm bench round``: what encryption, checks and records add to a whole Flower round."""

import datetime
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from twopm_flower.app import client_app as showcase_client
from twopm_flower.app import server_app as showcase_server
from twopm_flower.bench import round_app
from twopm_flower.bench.machine import this_machine
from twopm_flower.bench.progress import Progress
from twopm_flower.bench.round_clock import Clock, ClockCallback, TimedFedAvg, TimedGrid
from twopm_flower.bench.round_report import RoundReport
from twopm_flower.datasets import StudentTable, load_students
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.errors import ConfigError
from twopm_flower.federated import EncryptedAggregation, EncryptionMod, SimulationOptions
from twopm_flower.node.app_folder import write_app_folder
from twopm_flower.node.terms import read_run_config
from twopm_flower.records.terms import TrustMode

CLIP = 4.0

_STEPS = 2


@dataclass(frozen=True)
class RoundOptions:
    """What is measured.

    Attributes
    ----------
    rounds, nodes : int
    privacy : str
    parameters : int or None
        About the size of a made-up app, see `round_app`; None is the showcase.
    rows, epochs : int
        Training rows of each node in the made-up app, and how often a round goes over them.
    command : str
        What the report says was called.
    """

    rounds: int = 3
    nodes: int = 3
    privacy: TrustMode = "shared-key"
    parameters: int | None = None
    rows: int = round_app.ROWS
    epochs: int = round_app.EPOCHS
    command: str = "twopm bench round"

    def __post_init__(self) -> None:
        if self.parameters is not None and self.parameters < round_app.SMALLEST:
            raise ConfigError(
                f"A model of {self.parameters} parameters is too small for two convolutions.",
                hint=f"Use {round_app.SMALLEST} or more, or leave --parameters out.",
            )
        if self.rounds < 1 or self.nodes < 3 or self.rows < 1 or self.epochs < 1:
            raise ConfigError(
                f"{self.rounds} rounds of {self.nodes} nodes with {self.rows} rows and "
                f"{self.epochs} epochs cannot be measured.",
                hint="Use at least 1 round, 3 nodes, 1 row and 1 epoch.",
            )

    @property
    def made_up_config(self) -> dict[str, int]:
        """The run configuration of the made-up app; empty for the showcase."""
        if self.parameters is None:
            return {}
        return {
            "parameters": self.parameters,
            "rows": self.rows,
            "epochs": self.epochs,
            "rounds": self.rounds,
            "nodes": self.nodes,
        }


@dataclass(frozen=True)
class _App:
    """What differs between the showcase and the made-up app."""

    model: dict[str, npt.NDArray[np.float32]]
    run_config: dict[str, Any]
    train_config: dict[str, Any]
    node_config: dict[str, Any]

    def client(self, options: RoundOptions, *mods: Any) -> ClientApp:
        if options.parameters is not None:
            return round_app.client_app(list(mods))
        app = ClientApp(mods=list(mods))
        app.train()(showcase_client.train)
        app.evaluate()(showcase_client.evaluate)
        return app


def run_round(options: RoundOptions, progress: Progress) -> RoundReport:
    """Train the same app with this package and with plain Flower, in this process.

    Nodes take their turns, so the time of all nodes adds up; only Flower's transport is
    missing.
    """
    students = load_students("mat", progress=False) if options.parameters is None else None
    with tempfile.TemporaryDirectory() as folder, _own_home(Path(folder)):
        app = _made_up(options) if students is None else _showcase(Path(folder), students)
        progress.doing("plain Flower", 0, _STEPS)
        plain = _plain(app, options)
        progress.doing(f"{options.privacy}", 1, _STEPS)
        encrypted = _encrypted(app, options)
    return RoundReport(
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=options.command,
        app="showcase" if options.parameters is None else "network",
        parameters=sum(array.size for array in app.model.values()),
        rows=None if options.parameters is None else options.rows,
        epochs=None if options.parameters is None else options.epochs,
        nodes=options.nodes,
        privacy=options.privacy,
        encrypted=tuple(encrypted.rounds),
        plain=tuple(plain.rounds),
    )


def _showcase(folder: Path, students: StudentTable) -> _App:
    run_config = read_run_config(write_app_folder(folder / "app"))
    file = folder / f"student-{run_config['subject']}.csv"
    # Looking for the data, or making them up, belongs to no round.
    file.write_bytes(format_students(students.frame))
    return _App(
        model=showcase_server.initial_model(run_config),
        run_config=run_config,
        train_config=showcase_server.train_config(run_config),
        node_config={showcase_client.DATA_KEY: str(file)},
    )


def _made_up(options: RoundOptions) -> _App:
    model = round_app.initial(options.parameters or 0)
    return _App(model=model, run_config=options.made_up_config, train_config={}, node_config={})


def _plain(app: _App, options: RoundOptions) -> Clock:
    clock = Clock()
    strategy = TimedFedAvg(clock, **_nodes_needed(options))
    _start(strategy, app, options, clock, [clock.inner_mod])
    return clock


def _encrypted(app: _App, options: RoundOptions) -> Clock:
    clock = Clock()
    strategy = EncryptedAggregation(
        FedAvg(**_nodes_needed(options)),
        callbacks=[ClockCallback(clock)],
        simulation=SimulationOptions(trust_mode=options.privacy, clip=CLIP),
    )
    _start(strategy, app, options, clock, [EncryptionMod(), clock.inner_mod])
    return clock


def _start(
    strategy: FedAvg | EncryptedAggregation,
    app: _App,
    options: RoundOptions,
    clock: Clock,
    mods: list[Any],
) -> None:
    configs = [
        {**app.node_config, "partition-id": index, "num-partitions": options.nodes}
        for index in range(options.nodes)
    ]
    strategy.start(
        grid=TimedGrid(clock, app.client(options, *mods), configs, app.run_config),
        initial_arrays=ArrayRecord({name: Array(value) for name, value in app.model.items()}),
        num_rounds=options.rounds,
        train_config=ConfigRecord(app.train_config),
    )


def _nodes_needed(options: RoundOptions) -> dict[str, Any]:
    names = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")
    return dict.fromkeys(names, options.nodes)


@contextmanager
def _own_home(folder: Path) -> Iterator[None]:
    """Keep the runs away from the user's home, and their log out of the output."""
    former = {name: os.environ.pop(name, None) for name in ("TWOPM_HOME", "TWOPM_TASK")}
    loggers = [logging.getLogger(name) for name in ("flwr", "twopm_flower")]
    levels = [logger.level for logger in loggers]
    os.environ["TWOPM_HOME"] = str(folder / "home")
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        del os.environ["TWOPM_HOME"]
        os.environ.update({name: value for name, value in former.items() if value is not None})
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
