"""Runs a Flower deployment on this machine: a SuperLink, SuperNodes and an app, and ends them all.

Everything talks TLS on the loopback interface, and a SuperNode is admitted by its key. Each
process stands under a keeper (:mod:`twopm_flower.node.keeper`), so that nothing is left
running however this process ends. Flower is used by its own commands only.
"""

import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from twopm_flower.errors import DeploymentError
from twopm_flower.node.certificates import create_server_certificates, create_supernode_key
from twopm_flower.node.kept_process import KeptProcess
from twopm_flower.node.surroundings import LOOPBACK, flower_environment, free_port

CONNECTION = "twopm"
START_TIMEOUT_S = 90.0
_PORT_ATTEMPTS = 3
_PORT_TAKEN = "address already in use"
_POLL_S = 0.05
_COMMAND_TIMEOUT_S = 120.0


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


@dataclass(frozen=True)
class Run:
    """A submitted run.

    Attributes
    ----------
    run_id : int
        Flower's id of it.
    process : KeptProcess
        ``flwr run --stream``; its lines are the server app's log.
    """

    run_id: int
    process: KeptProcess = field(repr=False)

    def lines(self) -> Iterator[str]:
        """Yield the server app's log, line by line, until the run ends."""
        return self.process.lines()


class Deployment:
    """A SuperLink with its SuperNodes, ended when the block is left.

    Parameters
    ----------
    folder : Path
        Receives certificates, keys, logs, databases and Flower's own folders.
    coordinator_home : Path
        ``TWOPM_HOME`` of the server app's process.
    task : str, optional
        The task that the server app runs (``TWOPM_TASK``).
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
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.folder = folder.absolute()
        self.coordinator_home = coordinator_home.absolute()
        self.start_timeout_s = start_timeout_s
        self._task = {} if task is None else {"TWOPM_TASK": task}
        self.nodes: dict[str, SuperNode] = {}
        self.port = 0
        self._processes: list[KeptProcess] = []
        self._runs = 0
        self._certificates = create_server_certificates(self.folder / "superlink")

    def start(self) -> Self:
        """Start the SuperLink and wait until it answers."""
        self.folder.joinpath("database").mkdir(parents=True, exist_ok=True, mode=0o700)

        def launch(port: int) -> KeptProcess:
            self.port = port
            return self._keep(
                "SuperLink",
                [
                    *["flower-superlink", "--enable-supernode-auth"],
                    *["--disable-runtime-dependency-installation"],
                    *["--database", str(self.folder / "database" / "superlink.db")],
                    *["--host", LOOPBACK, "--port", str(port)],
                    *self._tls_flags("superlink"),
                ],
                home=self.coordinator_home,
                **self._task,
            )

        self.superlink = self._launch_on_free_port(launch, lambda _: self._answers())
        config = self.folder / "flower" / "cli" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(
            f"[superlink]\ndefault = {json.dumps(CONNECTION)}\n\n[superlink.{CONNECTION}]\n"
            f"address = {json.dumps(f'{LOOPBACK}:{self.port}')}\n"
            f"root-certificates = {json.dumps(str(self._certificates.authority))}\n",
            encoding="utf-8",
        )
        return self

    def add_nodes(self, homes: Mapping[str, Path]) -> None:
        """Register and start one SuperNode per home, and wait until all are connected.

        Parameters
        ----------
        homes : mapping of str to Path
            Each node's name and its ``TWOPM_HOME``; the order gives the partition ids.
        """
        keys: dict[str, Path] = {}
        registrations = []
        for name in homes:
            folder = self.folder / "nodes" / name
            create_server_certificates(folder)
            keys[name], public = create_supernode_key(folder)
            registrations.append(self._flwr("supernode", "register", str(public), CONNECTION))
        launched = {
            name: self._launch_node(name, home.absolute(), index, len(homes), keys[name])
            for index, (name, home) in enumerate(homes.items())
        }
        for registration in registrations:
            self._finish(registration)
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
        self._runs += 1
        settings = self.folder / "flower" / f"run-{self._runs}.toml"
        settings.write_text(
            "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in (run_config or {}).items()),
            encoding="utf-8",
        )
        override = ["--run-config", str(settings)] if run_config else []
        process = self._flwr("run", str(app.absolute()), CONNECTION, "--stream", *override)
        for line in process.lines():
            started = re.search(r"Successfully started run (\d+)", line)
            if started:
                return Run(int(started[1]), process)
        raise DeploymentError(
            f"Flower refused the app in {app}: {process.complaint()}",
            hint=f"Its words are in {process.log}.",
        )

    def run_status(self, run: Run) -> str:
        """Return Flower's status of a run, such as ``running`` or ``finished:completed``.

        ``flwr run --stream`` ends with 0 whether or not the run succeeded, hence the question.
        """
        command = ["flwr", "list", CONNECTION, "--run-id", str(run.run_id), "--format", "json"]
        answer = subprocess.run(  # noqa: S603  # our own interpreter's command
            command,
            env=self._environment("cli", self.coordinator_home),
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )
        try:
            status = json.loads(answer.stdout)["runs"][0]["status"]
        except (ValueError, KeyError, IndexError) as error:
            raise DeploymentError(
                f"Flower does not tell the status of run {run.run_id}: {answer.stdout.strip()}"
            ) from error
        return str(status)

    def require_success(self, run: Run, *, timeout_s: float = 30.0) -> None:
        """Wait for the end of a run whose log has ended.

        Raises
        ------
        DeploymentError
            It failed, was stopped, or does not end; its last words are quoted.
        """
        deadline = time.monotonic() + timeout_s
        status = self.run_status(run)
        while not status.startswith("finished") and time.monotonic() < deadline:
            status = self.run_status(run)
        if status != "finished:completed":
            raise DeploymentError(
                f"run {run.run_id} is {status}: {self._reason(run)}",
                hint=f"The server's log is {self.superlink.log}, the run's {run.process.log}.",
            )

    def stop(self) -> None:
        """End all processes, the youngest first; all are gone when this returns."""
        for process in reversed(self._processes):
            process.ask_to_stop()
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _environment(self, name: str, home: Path, **extra: str) -> dict[str, str]:
        flower_home = self.folder / "flower" / name
        flower_home.mkdir(parents=True, exist_ok=True)
        return flower_environment(flower_home, TWOPM_HOME=str(home), **extra)

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

    def _flwr(self, *arguments: str) -> KeptProcess:
        process = KeptProcess(
            f"flwr {arguments[0]}",
            ["flwr", *arguments],
            log=self.folder / "logs" / f"flwr-{arguments[0]}-{len(self._processes)}.log",
            environment=self._environment("cli", self.coordinator_home),
            folder=self.folder,
        )
        self._processes.append(process)
        return process

    def _finish(self, process: KeptProcess) -> None:
        deadline = time.monotonic() + _COMMAND_TIMEOUT_S
        while process.status is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if process.status != 0:
            raise _failure(process)

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
        raise _failure(node.process)

    def _launch_on_free_port(
        self, launch: Callable[[int], KeptProcess], ready: Callable[[KeptProcess], bool]
    ) -> KeptProcess:
        for _ in range(_PORT_ATTEMPTS):
            process = launch(free_port())
            if self._until(process, ready):
                return process
            # Between the choice of a port and its use, another process may have taken it.
            if _PORT_TAKEN not in process.text():
                break
        raise _failure(process)

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

    def _reason(self, run: Run) -> str:
        said = [line for line in run.process.text().splitlines() if "Error" in line]
        return said[-1].strip() if said else run.process.complaint()


def _failure(process: KeptProcess) -> DeploymentError:
    state = "does not answer" if process.status is None else f"ended with {process.status}"
    return DeploymentError(
        f"{process.name} {state}: {process.complaint()}", hint=f"Its log is {process.log}."
    )
