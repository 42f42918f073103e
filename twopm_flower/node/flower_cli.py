"""Flower's own command line: register nodes with a SuperLink, submit an app, ask how it went."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twopm_flower.errors import DeploymentError
from twopm_flower.node.kept_process import KeptProcess

CONNECTION = "twopm"
_POLL_S = 0.05
_COMMAND_TIMEOUT_S = 120.0


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

    def reason(self) -> str:
        """Return the last line that names an error, or else the last line."""
        said = [line for line in self.process.text().splitlines() if "Error: " in line]
        return said[-1].strip() if said else self.process.complaint()


class FlowerCli:
    """Runs ``flwr`` with a configuration of its own.

    Parameters
    ----------
    folder : Path
        ``FLWR_HOME`` of the commands; receives ``config.toml``.
    logs : Path
        Receives one log per command.
    environment : dict
        Of the commands.
    """

    def __init__(self, folder: Path, logs: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._logs = logs
        self._environment = environment
        self._count = 0
        self.processes: list[KeptProcess] = []

    def connect(self, address: str, authority: Path) -> None:
        """Write down where the SuperLink is, and whose certificates to believe."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "config.toml").write_text(
            f"[superlink]\ndefault = {json.dumps(CONNECTION)}\n\n[superlink.{CONNECTION}]\n"
            f"address = {json.dumps(address)}\n"
            f"root-certificates = {json.dumps(str(authority))}\n",
            encoding="utf-8",
        )

    def register(self, public_keys: list[Path]) -> list[KeptProcess]:
        """Start to admit SuperNodes by their public keys; :meth:`finish` waits for it."""
        return [self._start("supernode", "register", str(key), CONNECTION) for key in public_keys]

    def finish(self, processes: list[KeptProcess]) -> None:
        """Wait for commands to succeed.

        Raises
        ------
        DeploymentError
            One failed; its last words are quoted.
        """
        deadline = time.monotonic() + _COMMAND_TIMEOUT_S
        for process in processes:
            while process.status is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if process.status != 0:
                raise process.failure()

    def submit(
        self,
        app: Path,
        run_config: Mapping[str, str | int | float | bool],
        *,
        simulated_nodes: int | None = None,
    ) -> Run:
        """Submit an app and follow its log.

        Raises
        ------
        DeploymentError
            Flower refuses the app; its words are quoted.
        """
        arguments = [str(app.absolute()), CONNECTION, "--stream"]
        if run_config:
            settings = self._folder / f"run-{self._count}.toml"
            settings.write_text(
                "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in run_config.items()),
                encoding="utf-8",
            )
            arguments += ["--run-config", str(settings)]
        if simulated_nodes is not None:
            # Simulated nodes share the machine's cores, one after the other if need be.
            simulation = f"num-supernodes={simulated_nodes} client-resources-num-cpus=1"
            arguments += ["--federation-config", simulation]
        process = self._start("run", *arguments)
        for line in process.lines():
            started = re.search(r"Successfully started run (\d+)", line)
            if started:
                return Run(int(started[1]), process)
        raise DeploymentError(
            f"Flower refused the app in {app}: {process.complaint()}",
            hint=f"Its words are in {process.log}.",
        )

    def status(self, run: Run) -> str:
        """Return Flower's status of a run, such as ``running`` or ``finished:completed``.

        ``flwr run --stream`` ends with 0 whether or not the run succeeded, hence the question.
        """
        program = shutil.which("flwr", path=self._environment["PATH"]) or "flwr"
        answer = subprocess.run(  # noqa: S603  # our own interpreter's command
            [program, "list", CONNECTION, "--run-id", str(run.run_id), "--format", "json"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )
        try:
            return str(json.loads(answer.stdout)["runs"][0]["status"])
        except (ValueError, KeyError, IndexError) as error:
            raise DeploymentError(
                f"Flower does not tell the status of run {run.run_id}: {answer.stdout.strip()}"
            ) from error

    def _start(self, *arguments: str) -> KeptProcess:
        self._count += 1
        process = KeptProcess(
            f"flwr {arguments[0]}",
            ["flwr", *arguments],
            log=self._logs / f"flwr-{arguments[0]}-{self._count}.log",
            environment=self._environment,
            folder=self._logs,
        )
        self.processes.append(process)
        return process
