"""A design's process, seen from outside: one line of JSON asks, one line answers."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twopm_flower.bench import standalone
from twopm_flower.bench.peers import PEERS
from twopm_flower.errors import BenchmarkError

MODULES = {
    "plaintext": "twopm_flower.bench.plain",
    "tutorial": "twopm_flower.bench.tenseal_tutorial",
    "bfv": "twopm_flower.bench.ours",
    "one-time-key": "twopm_flower.bench.ours_one_time",
}
"""The designs that run in this environment, and the module of each."""

_STANDALONE = Path(next(iter(standalone.__path__)))

_KILLED = -9


class DesignProcess:
    """A process that measures one design; ends with the ``with`` block.

    Parameters
    ----------
    design : str
        One of `MODULES`, or a peer.
    home : Path
        Where peers are installed.
    """

    def __init__(self, design: str, home: Path) -> None:
        self.design = design
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._process = subprocess.Popen(  # noqa: S603
            _command(design, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, do: str, **arguments: int) -> dict[str, Any]:
        """Ask for one thing and wait for the answer.

        Raises
        ------
        BenchmarkError
            If the process failed at it, or died: out of memory, for one.
        """
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise BenchmarkError(f"The process of {self.design} has no pipes.")
        try:
            requests.write(json.dumps({"do": do, **arguments}) + "\n")
            requests.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise BenchmarkError(
                f"The process of {self.design} ended with status {status} at {do!r}: "
                f"{self._last_words()}",
                hint="It was killed, as when memory runs out." if status == _KILLED else None,
            )
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise BenchmarkError(f"{self.design} failed at {do!r}: {answer['failed']}")
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _command(design: str, home: Path) -> list[str]:
    if design in PEERS:
        peer = PEERS[design]
        return [str(peer.python(home)), str(_STANDALONE / "worker.py"), peer.module, design]
    worker = f"{standalone.__name__}.worker"
    # -P: a module in the working folder must not stand in for one of ours.
    return [sys.executable, "-P", "-m", worker, MODULES[design], design]
