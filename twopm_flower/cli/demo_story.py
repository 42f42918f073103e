"""The demo's story, told step by step: set up, train, verify, compare."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from twopm_flower.chain.backends import backend
from twopm_flower.cli.demo_comparison import (
    Comparison,
    PlaintextRun,
    compare,
    run_plaintext_task,
    simulate_plaintext,
)
from twopm_flower.datasets import StudentTable, load_students
from twopm_flower.errors import ConfigError
from twopm_flower.federated.home import TaskFolder
from twopm_flower.federated.run_store import Timings
from twopm_flower.federated.submitted_app import submitted_app_digest
from twopm_flower.node.app_folder import write_app_folder
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.runs import load_run, open_chain
from twopm_flower.node.supervisor import Deployment
from twopm_flower.node.surroundings import ending_on_signals
from twopm_flower.node.terms import TaskSettings, read_run_config
from twopm_flower.records.bundle import RunBundle
from twopm_flower.records.terms import TrustMode
from twopm_flower.verify import Report, verify_bundle

MIN_CONTRIBUTORS = 3


class Teller(Protocol):
    """Is told how the story goes."""

    def done(self, text: str) -> None:
        """Tell that something is done."""

    def doing(self, text: str) -> None:
        """Tell what is going on now."""

    def warn(self, text: str) -> None:
        """Tell what nobody may miss."""

    def training(self, round_: int, doing: str) -> None:
        """Tell which round the run is in, and what happens in it now."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demo is asked for.

    Attributes
    ----------
    rounds, nodes : int
    subject, setup : str
        See :mod:`twopm_flower.datasets`.
    privacy : {"shared-key", "one-time-key", "plaintext"}
    chain : str
        The chain backend.
    simulation : bool
        Flower's simulation engine in place of a deployment.
    data : Path or None
        Where the real files are; None looks in the usual places.
    require_real : bool
    """

    rounds: int = 5
    nodes: int = 3
    subject: str = "mat"
    setup: str = "A"
    privacy: TrustMode = "shared-key"
    chain: str = "evm"
    simulation: bool = False
    data: Path | None = None
    require_real: bool = False


@dataclass(frozen=True)
class DemoResult:
    """What came out.

    Attributes
    ----------
    options : DemoOptions
    label : str
        The data; says SYNTHETIC where they are made up.
    synthetic : bool
    bundle : RunBundle
    bundle_path : Path
    coordinator : Path
        The coordinator's home.
    timings : Timings
    report : Report
        The verification.
    comparison : Comparison or None
        None where verification failed.
    seconds : dict of str to float
        How long each part took.
    """

    options: DemoOptions
    label: str
    synthetic: bool
    bundle: RunBundle
    bundle_path: Path
    coordinator: Path
    timings: Timings
    report: Report
    comparison: Comparison | None
    seconds: dict[str, float]


def run_demo(folder: Path, options: DemoOptions, teller: Teller) -> DemoResult:
    """Tell the whole story below an empty folder.

    Raises
    ------
    RealDataMissingError
        Real data was insisted on, and there is none.
    DeploymentError
        The run failed; its reason is quoted.
    ConfigError
        There is no such chain, or not in simulation.
    """
    backend(options.chain)
    if options.simulation and options.chain != "evm":
        raise ConfigError(
            f"a simulation records on the embedded EVM chain, not on {options.chain}",
            hint="Leave --simulation out, or --chain.",
        )
    with _warning_to(teller):
        table = load_students(
            options.subject, options.data, require_real=options.require_real, progress=False
        )
    teller.done(f"data: {table.label}")
    app = write_app_folder(folder / "app")
    overrides = {
        "rounds": options.rounds,
        "subject": options.subject,
        "setup": options.setup,
        "trust-mode": options.privacy,
        # The default quorum: a majority of the nodes.
        "min-contributors": max(MIN_CONTRIBUTORS, options.nodes // 2 + 1),
    }
    scene = _Scene(folder, app, overrides, table, options, teller)
    with ending_on_signals(), _warned_once():
        return _simulate(scene) if options.simulation else _deploy(scene)


class _Clock:
    """Measures the parts of the story."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 1)
        self._last = now


@dataclass(frozen=True)
class _Scene:
    """What every part of the story needs."""

    folder: Path
    app: Path
    overrides: dict[str, Any]
    table: StudentTable
    options: DemoOptions
    teller: Teller
    clock: _Clock = field(default_factory=_Clock)

    @property
    def coordinator(self) -> Path:
        return self.folder / "coordinator"

    @property
    def plaintext_folder(self) -> Path:
        return self.folder / "plaintext"

    @property
    def data_folder(self) -> Path | None:
        return None if self.table.path is None else self.table.path.parent

    @property
    def run_config(self) -> dict[str, Any]:
        return read_run_config(self.app, self.overrides)


def _deploy(scene: _Scene) -> DemoResult:
    nodes, teller = scene.options.nodes, scene.teller
    settings = TaskSettings(synthetic=scene.table.is_synthetic)
    data = DataSource(path=scene.table.path, allow_download=False)
    teller.doing("starting the chain, making keys, agreeing on a task")
    with LocalFederation(
        scene.folder, nodes, told=teller.done, family=scene.options.chain
    ) as federation:
        task = federation.prepare(
            scene.run_config, settings, app_bundle=submitted_app_digest(scene.app), data=data
        )
        scene.clock.lap("set up")
        teller.doing(f"starting a SuperLink and {nodes} SuperNodes")
        with Deployment(
            scene.folder / "flower",
            coordinator_home=scene.coordinator,
            task=task.task_id,
            data=scene.data_folder,
        ) as deployment:
            deployment.add_nodes(federation.homes)
            teller.done(f"SuperLink and {nodes} SuperNodes up: TLS, each admitted by its key")
            scene.clock.lap("start Flower")
            _train(scene, deployment)
        own = TaskFolder(next(iter(federation.homes.values())) / "tasks" / task.task_id)

        def plaintext() -> PlaintextRun:
            # In homes of its own: the demo's homes know the demo's task only.
            beside = federation.beside(scene.plaintext_folder)
            return run_plaintext_task(beside, scene.run_config, settings, data)

        return _conclude(scene, own, plaintext)


def _simulate(scene: _Scene) -> DemoResult:
    nodes = scene.options.nodes
    scene.teller.doing("starting a SuperLink and Flower's simulation engine")
    scene.coordinator.mkdir(parents=True, mode=0o700)
    with Deployment(
        scene.folder / "flower",
        coordinator_home=scene.coordinator,
        data=scene.data_folder,
        simulated_nodes=nodes,
    ) as deployment:
        scene.teller.done(f"SuperLink up, with Flower's simulation engine for {nodes} nodes")
        scene.clock.lap("start Flower")
        _train(scene, deployment)
    task_id = load_run(scene.coordinator, None).bundle.task_id
    own = TaskFolder(scene.coordinator / "simulation" / "node-0" / "tasks" / task_id)
    return _conclude(
        scene,
        own,
        lambda: simulate_plaintext(
            scene.plaintext_folder, scene.run_config, nodes, scene.data_folder
        ),
    )


def _train(scene: _Scene, deployment: Deployment) -> None:
    rounds, teller, round_ = scene.options.rounds, scene.teller, 0
    teller.doing("submitting the app; Flower starts it")
    run = deployment.submit(scene.app, scene.overrides)
    for line in run.lines():
        if started := re.search(r"\[ROUND (\d+)/\d+\]", line):
            round_ = int(started[1])
            teller.training(round_, "nodes train and encrypt")
        elif "aggregate_train: Received" in line:
            teller.training(round_, "ciphertexts added; nodes sign fingerprints")
        elif "[CLOSING]" in line:
            teller.training(rounds, "last opening; the last records go on chain")
        elif "final model" in line:
            teller.doing("everything is on chain; the run ends")
    deployment.require_success(run)
    teller.done(f"trained {rounds} round{'s' if rounds > 1 else ''}, each recorded on chain")
    scene.clock.lap("train")


def _conclude(
    scene: _Scene, own: TaskFolder, run_plaintext: Callable[[], PlaintextRun]
) -> DemoResult:
    scene.teller.doing("verifying the run: every signature, sum, record and model")
    run = load_run(scene.coordinator, own.task_id, with_ciphertexts=True)
    reader, why = open_chain(scene.coordinator, run.bundle.deployment)
    report = verify_bundle(run.bundle, chain=reader)
    scene.clock.lap("verify")
    scene.teller.done(_verdict(report, why))
    comparison = None
    if report.first_failure is None:
        scene.teller.doing("training the same split without encryption, and in one place")
        comparison = compare(
            run_plaintext(),
            scene.run_config,
            scene.options.nodes,
            scene.table,
            own=own,
            report=report,
        )
        scene.clock.lap("compare")
        scene.teller.done("trained the same split without encryption, and in one place")
    return DemoResult(
        options=scene.options,
        label=scene.table.label,
        synthetic=scene.table.is_synthetic,
        bundle=run.bundle,
        bundle_path=run.path,
        coordinator=scene.coordinator,
        timings=run.timings,
        report=report,
        comparison=comparison,
        seconds=scene.clock.laps,
    )


@contextmanager
def _warned_once() -> Iterator[None]:
    """Keep every node from repeating that the data are made up, which has just been said."""
    logger = logging.getLogger("twopm_flower.datasets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _warning_to(teller: Teller) -> Iterator[None]:
    """Let the teller say what the data's log says: it knows how wide the terminal is."""
    handler = logging.Handler()
    handler.emit = lambda record: teller.warn(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("twopm_flower.datasets")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _verdict(report: Report, why_no_chain: str | None) -> str:
    failure = report.first_failure
    if failure is not None:
        return f"verification FAILED at step {failure.number}, {failure.title}: {failure.detail}"
    if why_no_chain is not None:
        return f"verified, but not against the chain: {why_no_chain}"
    passed = sum(step.status == "passed" for step in report.steps)
    sums = "re-executed" if report.level == "re-executed" else "checked by fingerprints"
    return f"verified: {passed} of {len(report.steps)} steps hold, sums {sums}"
