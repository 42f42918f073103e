"""Runs a Flower deployment on this machine: a SuperLink, SuperNodes and an app, and ends them all.

Everything talks TLS on the loopback interface, and a SuperNode is admitted by its key. Each
process stands under a keeper (:mod:`twopm_flower.node.keeper`), so that nothing is left
running however this process ends. Flower is used by its own commands only.
"""

import importlib.util
import json
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from twopm_flower.errors import DeploymentError
from twopm_flower.node.certificates import create_server_certificates, create_supernode_key
from twopm_flower.node.flower_cli import FlowerCli, Run
from twopm_flower.node.kept_process import KeptProcess
from twopm_flower.node.lifetime import Lifetime
from twopm_flower.node.surroundings import LOOPBACK, flower_environment, free_port

START_TIMEOUT_S = 90.0
_PORT_ATTEMPTS = 3
_PORT_TAKEN = "address already in use"
_POLL_S = 0.05


@dataclass
class SuperNode:
    """A SuperNode of the deployment.

    Attributes
    ----------
    name : str
        The operator's name for it.
    home : Path
        Its ``TWOPM_HOME``.
    partition : int
        Its ``partition-id``.
    partitions : int
        Its ``num-partitions``.
    key : Path
        Its private key for the SuperLink.
    process : KeptProcess
        The running process; after a restart, the newest one.
    """

    name: str
    home: Path
    partition: int
    partitions: int
    key: Path
    process: KeptProcess = field(repr=False)


class Deployment(Lifetime):
    """A SuperLink with its SuperNodes, ended when the block is left.

    Parameters
    ----------
    folder : Path
        Receives certificates, keys, logs, databases and Flower's own folders.
    coordinator_home : Path
        ``TWOPM_HOME`` of the server app's process.
    task : str, optional
        The task that the server app runs (``TWOPM_TASK``).
    data : Path, optional
        Where simulated nodes and SuperNodes look for data (``TWOPM_DATA_DIR``).
    simulated_nodes : int, optional
        Run that many nodes on Flower's simulation engine, instead of SuperNodes.
    start_timeout_s : float
        How long a process may take until it answers.

    Raises
    ------
    DeploymentError
        A process does not start; its last words are quoted, and its log is named.

    Examples
    --------
    >>> with Deployment(folder, coordinator_home=home, task=task) as deployment:  # doctest: +SKIP
    ...     deployment.add_nodes({"alice": alice_home, "bob": bob_home, "carol": carol_home})
    ...     run = deployment.submit(Path("."))
    ...     for line in run.lines():
    ...         print(line)
    ...     deployment.require_success(run)
    """

    def __init__(
        self,
        folder: Path,
        *,
        coordinator_home: Path,
        task: str | None = None,
        data: Path | None = None,
        simulated_nodes: int | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.folder = folder.absolute()
        self.coordinator_home = coordinator_home.absolute()
        self.start_timeout_s = start_timeout_s
        self._task = {} if task is None else {"TWOPM_TASK": task}
        self._data = {} if data is None else {"TWOPM_DATA_DIR": str(data.absolute())}
        self._simulated_nodes = simulated_nodes
        self._ray: dict[str, str] = {}
        self.nodes: dict[str, SuperNode] = {}
        self.port = 0
        self._processes: list[KeptProcess] = []
        self._certificates = create_server_certificates(self.folder / "superlink")
        self._flwr = FlowerCli(
            self.folder / "flower" / "cli",
            self.folder / "logs",
            self._environment("cli", self.coordinator_home),
        )

    def start(self) -> Self:
        """Start the SuperLink and wait until it answers."""
        if self._simulated_nodes is not None:
            # The engine's sockets need a short path, and its default is shared and never emptied.
            self._ray = {"RAY_TMPDIR": tempfile.mkdtemp(prefix="twopm-")}
        for name in ("database", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.superlink = self._launch_superlink()
        self._flwr.connect(f"{LOOPBACK}:{self.port}", self._certificates.authority)
        return self

    def add_nodes(self, homes: Mapping[str, Path]) -> None:
        """Register and start one SuperNode per home, and wait until all are connected.

        Parameters
        ----------
        homes : mapping of str to Path
            Each node's name and its ``TWOPM_HOME``; the order gives the partition ids.
        """
        if self._simulated_nodes is not None:
            raise DeploymentError("a simulation has no SuperNodes to start")
        keys: dict[str, tuple[Path, Path]] = {}
        for name in homes:
            create_server_certificates(self.folder / "nodes" / name)
            keys[name] = create_supernode_key(self.folder / "nodes" / name)
        registrations = self._flwr.register([public for _, public in keys.values()])
        launched = {
            name: self._launch_node(name, home.absolute(), index, len(homes), keys[name][0])
            for index, (name, home) in enumerate(homes.items())
        }
        self._flwr.finish(registrations)
        for name, node in launched.items():
            self.nodes[name] = node
            self._await_node(node)

    def kill_node(self, name: str) -> None:
        """Kill a SuperNode and all its processes, as a power cut would."""
        self.nodes[name].process.kill()

    def restart_node(self, name: str) -> None:
        """Start a killed SuperNode again, with the same key and home."""
        node = self.nodes[name]
        node.process.stop()
        node.process = self._launch_node(
            name, node.home, node.partition, node.partitions, node.key
        ).process
        self._await_node(node)

    def submit(
        self, app: Path, run_config: Mapping[str, str | int | float | bool] | None = None
    ) -> Run:
        """Submit a Flower app and follow its log.

        Parameters
        ----------
        app : Path
            The folder with the app's ``pyproject.toml``.
        run_config : mapping, optional
            Values for keys of ``[tool.flwr.app.config]``.

        Returns
        -------
        Run
            The run, as soon as Flower has accepted it.

        Raises
        ------
        DeploymentError
            Flower refuses the app.
        """
        return self._flwr.submit(app, run_config or {}, simulated_nodes=self._simulated_nodes)

    def require_success(self, run: Run, *, timeout_s: float = 30.0) -> None:
        """Wait for the end of a run whose log has ended.

        Raises
        ------
        DeploymentError
            It failed, was stopped, or does not end; its last words are quoted.
        """
        deadline = time.monotonic() + timeout_s
        status = self._flwr.status(run)
        while not status.startswith("finished") and time.monotonic() < deadline:
            status = self._flwr.status(run)
        if status != "finished:completed":
            raise DeploymentError(
                f"run {run.run_id} is {status}: {run.reason()}",
                hint=f"The server's log is {self.superlink.log}, the run's {run.process.log}.",
            )

    def stop(self) -> None:
        """End all processes, the youngest first; all are gone when this returns."""
        processes = [*self._processes, *self._flwr.processes]
        for process in reversed(processes):
            process.ask_to_stop()
        for process in reversed(processes):
            process.stop()
        self._processes.clear()
        self._flwr.processes.clear()
        if self._ray:
            shutil.rmtree(self._ray.pop("RAY_TMPDIR"), ignore_errors=True)

    def _environment(self, name: str, home: Path, **extra: str) -> dict[str, str]:
        flower_home = self.folder / "flower" / name
        flower_home.mkdir(parents=True, exist_ok=True)
        return flower_environment(flower_home, TWOPM_HOME=str(home), **self._data, **extra)

    def _keep(self, name: str, command: list[str], *, home: Path, **extra: str) -> KeptProcess:
        word = name.lower().replace(" ", "-")
        process = KeptProcess(
            name,
            command,
            log=self.folder / "logs" / f"{word}.log",
            environment=self._environment(word, home, **extra),
            folder=self.folder,
        )
        self._processes.append(process)
        return process

    def _database_flags(self) -> list[str]:
        flower = importlib.util.find_spec("flwr")
        if flower is None or flower.origin is None or " " in flower.origin:
            # Flower hands the folder of its migrations to alembic in a list that is split at
            # spaces, and then finds no tables: its state stays in memory here.
            return []
        return ["--database", str(self.folder / "database" / "superlink.db")]

    def _tls_flags(self, folder: str) -> list[str]:
        path = self.folder / folder
        return [
            *["--ssl-ca-certfile", str(path / "ca.pem")],
            *["--ssl-certfile", str(path / "server.pem")],
            *["--ssl-keyfile", str(path / "server.key")],
        ]

    def _launch_node(
        self, name: str, home: Path, partition: int, partitions: int, key: Path
    ) -> SuperNode:
        config = f"partition-id={partition} num-partitions={partitions} "
        config += f"twopm-home={json.dumps(str(home))}"
        process = self._keep(
            f"SuperNode {name}",
            [
                *["flower-supernode", "--superlink", f"{LOOPBACK}:{self.port}"],
                *["--root-certificates", str(self._certificates.authority)],
                *["--auth-supernode-private-key", str(key)],
                *["--host", LOOPBACK, "--port", str(free_port())],
                *["--node-config", config],
                *self._tls_flags(f"nodes/{name}"),
            ],
            home=home,
        )
        return SuperNode(name, home, partition, partitions, key, process)

    def _await_node(self, node: SuperNode) -> None:
        for _ in range(_PORT_ATTEMPTS):
            if self._until(node.process, lambda process: "SuperNode ID:" in process.text()):
                return
            if _PORT_TAKEN not in node.process.text():
                break
            node.process = self._launch_node(
                node.name, node.home, node.partition, node.partitions, node.key
            ).process
        raise node.process.failure()

    def _launch_superlink(self) -> KeptProcess:
        simulated = self._simulated_nodes is not None
        mode = "--simulation" if simulated else "--enable-supernode-auth"
        for _ in range(_PORT_ATTEMPTS):
            self.port = free_port()
            process = self._keep(
                "SuperLink",
                [
                    *["flower-superlink", mode, "--disable-runtime-dependency-installation"],
                    *self._database_flags(),
                    *["--host", LOOPBACK, "--port", str(self.port)],
                    *self._tls_flags("superlink"),
                ],
                home=self.coordinator_home,
                **self._task,
                **self._ray,
            )
            if self._until(process, lambda _: self._answers()):
                return process
            # Between the choice of a port and its use, another process may have taken it.
            if _PORT_TAKEN not in process.text():
                break
        raise process.failure()

    def _until(self, process: KeptProcess, ready: Callable[[KeptProcess], bool]) -> bool:
        deadline = time.monotonic() + self.start_timeout_s
        while process.status is None and time.monotonic() < deadline:
            if ready(process):
                return True
            time.sleep(_POLL_S)
        return False

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=self._certificates.authority)
        try:
            with (
                socket.create_connection((LOOPBACK, self.port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=LOOPBACK),
            ):
                return True
        except OSError:
            return False
