"""What the demo compares encrypted training with: plaintext training, and one central model."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.app.in_process import run_in_process
from twopm_flower.datasets import FeatureEncoder, StudentTable
from twopm_flower.datasets.partition import partition, pool, split_holdout
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.federated.home import TaskFolder
from twopm_flower.models.centralised import fit_centralised
from twopm_flower.models.logistic_regression import LogisticRegression
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.runs import load_run
from twopm_flower.node.terms import TaskSettings
from twopm_flower.verify import Report, verify_bundle


@dataclass(frozen=True)
class Score:
    """How a model does on the rows that all nodes held out.

    Attributes
    ----------
    correct, rows : int
    loss : float
        Mean, in nats.
    """

    correct: int
    rows: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The share of rows that it gets right."""
        return self.correct / self.rows


@dataclass(frozen=True)
class Comparison:
    """The same split, trained in three ways.

    Attributes
    ----------
    federated : Score
        The demo's own run.
    plaintext : Score
        Federated training through the same quantiser, without encryption, in this process.
    centralised : Score
        A regression on all training rows in one place, solved to convergence.
    identical : bool
        Whether the demo's model and the plaintext one are equal, bit for bit.
    """

    federated: Score
    plaintext: Score
    centralised: Score
    identical: bool


@dataclass(frozen=True)
class PlaintextRun:
    """The run without encryption.

    Attributes
    ----------
    score : Score
    model : dict of str to ndarray
        The final model.
    """

    score: Score
    model: dict[str, npt.NDArray[np.float32]]


def run_plaintext_task(
    federation: LocalFederation,
    run_config: Mapping[str, Any],
    settings: TaskSettings,
    data: DataSource,
) -> PlaintextRun:
    """Train in this process, in the homes of a federation.

    Clip, weights and quantiser are those of the task with encryption.
    """
    config = {**run_config, "trust-mode": "plaintext"}
    task = federation.prepare(config, settings, app_bundle=app_bundle_digest(None), data=data)
    homes = tuple(federation.homes.values())
    with _surroundings(
        TWOPM_HOME=str(federation.coordinator),
        TWOPM_TASK=task.task_id,
        TWOPM_DATA_DIR=_folder_of(data.path),
    ):
        run_in_process(config, len(homes), homes=homes)
    return _outcome(federation.coordinator, task.task_id, homes[0])


def simulate_plaintext(
    folder: Path, run_config: Mapping[str, Any], nodes: int, data: Path | None
) -> PlaintextRun:
    """Train in this process, as a simulation of its own."""
    config = {**run_config, "trust-mode": "plaintext"}
    with _surroundings(TWOPM_HOME=str(folder), TWOPM_TASK=None, TWOPM_DATA_DIR=_folder_of(data)):
        run_in_process(config, nodes)
    return _outcome(folder, None, folder / "simulation" / "node-0")


def compare(
    plaintext: PlaintextRun,
    run_config: Mapping[str, Any],
    nodes: int,
    table: StudentTable,
    *,
    own: TaskFolder,
    report: Report,
) -> Comparison:
    """Compare the demo's run with one without encryption, and with one central model.

    Parameters
    ----------
    plaintext : PlaintextRun
    run_config : mapping
        Of the demo's run.
    nodes : int
    table : StudentTable
        The data that the nodes share.
    own : TaskFolder
        What a node of the demo's run keeps.
    report : Report
        The verification of the demo's run.
    """
    model = own.load_model(int(run_config["rounds"]))
    identical = model.keys() == plaintext.model.keys() and all(
        np.array_equal(model[name], plaintext.model[name]) for name in model
    )
    return Comparison(
        federated=final_score(report),
        plaintext=plaintext.score,
        centralised=_centralised(run_config, nodes, table),
        identical=identical,
    )


def final_score(report: Report) -> Score:
    """Return the opened evaluation of a run's last model."""
    sums = report.metrics[-1].evaluation or {}
    rows = int(sums["num-examples"])
    return Score(int(sums["correct"]), rows, sums["loss"] / rows)


def _centralised(config: Mapping[str, Any], nodes: int, table: StudentTable) -> Score:
    seed = int(config["seed"])
    parts = partition(table.frame, nodes, str(config["partition"]), seed=seed)
    split = pool([split_holdout(rows, seed=seed) for rows in parts])
    encoder = FeatureEncoder(str(config["setup"]), str(config["target"]))
    arrays = fit_centralised(*encoder.encode(table.frame.iloc[split.train]), l2=float(config["l2"]))
    metrics = LogisticRegression(encoder.n_features).evaluate(
        arrays, *encoder.encode(table.frame.iloc[split.held_out])
    )
    return Score(metrics.correct, metrics.rows, metrics.loss)


def _outcome(coordinator: Path, task_id: str | None, node: Path) -> PlaintextRun:
    bundle = load_run(coordinator, task_id).bundle
    folder = TaskFolder(node / "tasks" / bundle.task_id)
    model = folder.load_model(bundle.terms.rounds)
    return PlaintextRun(final_score(verify_bundle(bundle, chain=None)), model)


def _folder_of(path: Path | None) -> str | None:
    if path is None:
        return None
    return str(path if path.is_dir() else path.parent)


@contextmanager
def _surroundings(**variables: str | None) -> Iterator[None]:
    """Set environment variables, and keep the run's own log out of the demo's output."""
    former = {name: os.environ.get(name) for name in variables}
    loggers = [logging.getLogger(name) for name in ("flwr", "twopm_flower")]
    levels = [logger.level for logger in loggers]
    try:
        for name, value in variables.items():
            _set(name, value)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for name, text in former.items():
            _set(name, text)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
