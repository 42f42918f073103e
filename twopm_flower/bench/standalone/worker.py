"""One design in a process of its own: measures what it is told to, over lines of JSON.

Started as ``python -m twopm_flower.bench.standalone.worker MODULE DESIGN`` for designs of this
package, or by its path with the Python of a peer's environment, which has neither this
package nor its dependencies. It does nothing between two lines, so that another design can
be measured meanwhile. Only the standard library and numpy are used here.

One line asks, one line answers::

    {"do": "prepare", "size": 41, "nodes": 10, "seed": 1}  sizes and bytes of the set-up
    {"do": "round"}                                        all nodes once; not timed
    {"do": "repeat", "node": 3}                            seconds of one client and server
    {"do": "shares"}                                       what travels beside an update
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

if __package__:
    from twopm_flower.bench.standalone import updates
else:
    # By path, in a peer's environment: the file beside this one.
    import updates  # type: ignore[import-not-found,no-redef]

WARM_UP_SIZE = 200_000
"""Large enough that what is compiled for large models is compiled."""


class Design(Protocol):
    """A way to add up updates; a module's ``open_design(name, size, nodes)`` makes one."""

    def encrypt(self, node: int, update: updates.Arrays) -> bytes:
        """Client: return the bytes that travel up."""

    def start(self) -> None:
        """Server: forget all that was added."""

    def add(self, node: int, upload: bytes) -> None:
        """Server: read one node's bytes and add them."""

    def finish(self) -> bytes:
        """Server: return the bytes that travel down."""

    def open(self, download: bytes) -> updates.Means:
        """Client: return the weighted mean of the updates that were added."""

    def error_bound(self) -> float | None:
        """Return the largest error of the mean that the design allows, where it states one."""

    def shares(self) -> dict[str, float] | None:
        """Return bytes and seconds of what travels beside an update, where anything does."""


class Worker:
    """Does what the lines say.

    Parameters
    ----------
    module : str
        The module with ``open_design``.
    name : str
        The design.
    """

    def __init__(self, module: str, name: str) -> None:
        self._open = importlib.import_module(module).open_design
        self._name = name
        self._size = self._nodes = self._seed = self._baseline = 0
        self._design: Design
        self._download = b""

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one line."""
        match asked["do"]:
            case "prepare":
                return self._prepare(int(asked["size"]), int(asked["nodes"]), int(asked["seed"]))
            case "round":
                return self._round()
            case "repeat":
                return self._repeat(int(asked["node"]))
            case "shares":
                return {"shares": self._design.shares()}
        raise ValueError(f"nothing to do for {asked!r}")

    def _prepare(self, size: int, nodes: int, seed: int) -> dict[str, Any]:
        # What is compiled, loaded or cached on first use belongs to no measurement.
        self._size, self._nodes, self._seed = min(size, WARM_UP_SIZE), nodes, seed
        self._design = self._open(self._name, self._size, nodes)
        self._round()
        self._repeat(0)
        self._size, self._download = size, b""
        self._design = self._open(self._name, size, nodes)
        return {"layers": updates.layers(size), "error_bound": self._design.error_bound()}

    def _round(self) -> dict[str, Any]:
        own = updates.update(self._size, 0, self._seed)
        with peak_memory() as encrypting:
            upload = self._design.encrypt(0, own)
        upload_bytes = len(upload)
        self._design.start()
        with peak_memory() as adding:
            self._design.add(0, upload)
            del upload
            for node in range(1, self._nodes):
                own = updates.update(self._size, node, self._seed)
                self._design.add(node, self._design.encrypt(node, own))
            self._download = self._design.finish()
        with peak_memory() as opening:
            found = self._design.open(self._download)
        exact = updates.mean(self._size, self._nodes, self._seed)
        error = max(float(np.abs(np.ravel(found[name]) - exact[name]).max()) for name in exact)
        return {
            "upload_bytes": upload_bytes,
            "download_bytes": len(self._download),
            "error": error,
            "encrypt_peak_bytes": encrypting.extra,
            "round_peak_bytes": max(adding.extra, encrypting.extra),
            "decrypt_peak_bytes": opening.extra,
        }

    def _repeat(self, node: int) -> dict[str, Any]:
        own = updates.update(self._size, node, self._seed)
        other = (node + 1) % self._nodes
        gc.collect()
        start = time.perf_counter()
        upload = self._design.encrypt(node, own)
        encrypted = time.perf_counter()
        # The first update is only kept; what a server does per upload is the second one's.
        self._design.start()
        self._design.add(node, upload)
        del upload
        second = self._design.encrypt(other, updates.update(self._size, other, self._seed))
        gc.collect()
        ready = time.perf_counter()
        self._design.add(other, second)
        added = time.perf_counter()
        del second
        gc.collect()
        before = time.perf_counter()
        self._design.open(self._download)
        opened = time.perf_counter()
        return {
            "encrypt_s": encrypted - start,
            "add_s": added - ready,
            "decrypt_s": opened - before,
        }


class Peak:
    """How much memory was used above what was used before, at most."""

    extra = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the largest resident memory above the one at the start.

    Counts this process and those that it started. Linux only: elsewhere `Peak.extra` stays 0.
    """
    gc.collect()
    _give_back()
    peak = Peak()
    if not Path("/proc/self/clear_refs").exists():
        yield peak
        return
    before = 0
    for process in _processes():
        # 5 resets the high-water mark, see proc(5).
        Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")
        before += _memory(process, "VmRSS")
    yield peak
    peak.extra = max(0, sum(_memory(process, "VmHWM") for process in _processes()) - before)


def _give_back() -> None:
    """Hand freed memory back to the system, or the next step would seem to take none."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _processes() -> list[int]:
    """Return this process and its children."""
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children")
    return [own, *map(int, children.read_text(encoding="ascii").split())]


def _memory(process: int, name: str) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def serve(worker: Worker, lines: TextIO, answers: TextIO) -> None:
    """Answer lines until there are no more."""
    for line in lines:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001  # told to whoever asked
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve stdin and stdout; whatever else writes to stdout goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(Worker(sys.argv[1], sys.argv[2]), sys.stdin, answers)


if __name__ == "__main__":
    main()
