"""Starts a command under a keeper, and follows what it says."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from twopm_flower.errors import DeploymentError
from twopm_flower.node.keeper import KILL_AT_ONCE, descendants

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_POLL_S = 0.05
_STOP_TIMEOUT_S = 20.0


class KeptProcess:
    """A command under a keeper, with its words in a log file.

    Parameters
    ----------
    name : str
        What it is called in errors.
    command : list of str
        The command; its first word is looked up on ``PATH``.
    log : Path
        Receives standard output and standard error.
    environment : dict
        Its environment.
    folder : Path, optional
        Its working folder.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log: Path,
        environment: dict[str, str],
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as words:
            self._start = words.tell()
            # -P: a module in the working folder must not stand in for one of ours.
            self._keeper = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [sys.executable, "-P", "-m", "twopm_flower.node.keeper", *command],
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                # Ctrl-C reaches this process only; it decides in which order the others end.
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._keeper.poll()

    def pids(self) -> list[int]:
        """Return the ids of all processes of its tree, the keeper first."""
        return [self._keeper.pid, *descendants(self._keeper.pid)]

    def text(self) -> str:
        """Return what it said so far, without colours."""
        with self.log.open("rb") as words:
            words.seek(self._start)
            return _COLOURS.sub("", words.read().decode(errors="replace"))

    def lines(self) -> Iterator[str]:
        """Yield its lines as they come, until it has ended."""
        with self.log.open("rb") as words:
            words.seek(self._start)
            rest = ""
            while True:
                running = self.status is None
                fresh = words.read().decode(errors="replace")
                *whole, rest = (rest + fresh).split("\n")
                yield from (_COLOURS.sub("", line) for line in whole)
                if not fresh:
                    if not running:
                        break
                    time.sleep(_POLL_S)
            if rest:
                yield _COLOURS.sub("", rest)

    def complaint(self) -> str:
        """Return its last line that says something, for an error message."""
        said = [line.strip() for line in self.text().splitlines() if line.strip()]
        return said[-1] if said else "it said nothing"

    def failure(self) -> DeploymentError:
        """Return the error that says how it failed, with its last words."""
        state = "does not answer" if self.status is None else f"ended with {self.status}"
        return DeploymentError(
            f"{self.name} {state}: {self.complaint()}", hint=f"Its log is {self.log}."
        )

    def ask_to_stop(self) -> None:
        """Let the tree end in good order; returns at once."""
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()

    def stop(self) -> None:
        """Let the tree end in good order, and wait until it has."""
        self.ask_to_stop()
        try:
            self._keeper.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in reversed(self.pids()):
                os.kill(pid, signal.SIGKILL)
            self._keeper.wait()

    def kill(self) -> None:
        """End the tree without a chance to tidy up, as a power cut would."""
        stdin = self._keeper.stdin
        if stdin is not None and not stdin.closed and self.status is None:
            stdin.write(KILL_AT_ONCE)
            stdin.flush()
        self.stop()
