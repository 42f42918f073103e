"""``twopm bench he``: encrypted sums of several designs, measured side by side.

Every design runs in a process of its own for each size. Repeats are interleaved: each
design does one repeat, then each the next, in turns that start with another design every
time, while all others wait. So what else the machine does meets all of them alike.
"""

import datetime
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twopm_flower.bench.he_report import HeReport, Measurement, Shares, Skipped, ratios_of
from twopm_flower.bench.machine import free_memory, this_machine
from twopm_flower.bench.peers import INSTALL_HINT, PEERS
from twopm_flower.bench.process import MODULES, DesignProcess
from twopm_flower.bench.progress import Progress
from twopm_flower.errors import BenchmarkError, ConfigError

SIZES = (41, 10_000, 1_000_000, 10_000_000)
QUICK_SIZES = (41, 10_000)
DESIGNS = ("plaintext", "tutorial", "nvflare", "bfv", "one-time-key")
SEED = 20260

_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class HeOptions:
    """What is measured.

    Attributes
    ----------
    sizes : tuple of int
        Parameters of the models.
    designs : tuple of str
    repeats : int
        Timed repeats of each design and size, after one that is not timed.
    nodes : int
        How many nodes' updates are added, and for how many parameters are derived.
    command : str
        What the report says was called.
    """

    sizes: tuple[int, ...] = SIZES
    designs: tuple[str, ...] = DESIGNS
    repeats: int = 7
    nodes: int = 10
    command: str = "twopm bench he"

    def __post_init__(self) -> None:
        known = (*MODULES, *PEERS)
        unknown = [name for name in self.designs if name not in known]
        if unknown or not self.designs:
            raise ConfigError(
                f"There is no design {', '.join(map(repr, unknown)) or 'to measure'}.",
                hint=f"Choose from {','.join(DESIGNS)}.",
            )
        if not self.sizes or min(self.sizes) < 2:
            raise ConfigError(f"Sizes {self.sizes} are not numbers from 2 parameters up.")
        if self.repeats < 1 or not 2 <= self.nodes <= 1000:
            raise ConfigError(
                f"{self.repeats} repeats with {self.nodes} nodes cannot be measured.",
                hint="Use at least 1 repeat, and 2 to 1000 nodes.",
            )


def run_he(options: HeOptions, home: Path, progress: Progress) -> HeReport:
    """Measure all designs at all sizes.

    Parameters
    ----------
    options : HeOptions
    home : Path
        Where peers are installed.
    progress : Progress

    Returns
    -------
    HeReport
        Designs that cannot run here are listed with the reason.
    """
    race = _Race(options, home, progress)
    designs = [design for design in options.designs if race.can_run(design)]
    for size in options.sizes:
        race.run(size, [design for design in designs if race.has_memory(design, size)])
    return HeReport(
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=options.command,
        nodes=options.nodes,
        repeats=options.repeats,
        seed=SEED,
        measurements=tuple(race.measurements),
        ratios=ratios_of(race.measurements),
        skipped=tuple(race.skipped),
    )


@dataclass
class _Lane:
    """One design at one size, while it is measured."""

    process: DesignProcess
    prepared: dict[str, Any]
    round: dict[str, Any]
    repeats: list[dict[str, float]] = field(default_factory=list)


class _Race:
    def __init__(self, options: HeOptions, home: Path, progress: Progress) -> None:
        self._options = options
        self._home = home
        self._progress = progress
        self._done = 0
        self.measurements: list[Measurement] = []
        self.skipped: list[Skipped] = []

    def can_run(self, design: str) -> bool:
        peer = PEERS.get(design)
        if peer is None or peer.installed(self._home):
            return True
        self._skip(design, None, f"{peer.title} is not installed", INSTALL_HINT)
        return False

    def has_memory(self, design: str, size: int) -> bool:
        """Tell whether a size fits, judging by what the next smaller one took."""
        smaller = [m for m in self.measurements if m.design == design and m.size < size]
        free = free_memory()
        if not smaller or not free:
            return True
        largest = max(smaller, key=lambda m: m.size)
        taken = max(largest.round_peak_bytes, largest.decrypt_peak_bytes)
        needed = taken * size / largest.size
        if needed < _MEMORY_SHARE * free:
            return True
        gigabytes = f"about {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free"
        self._skip(design, size, f"it takes {gigabytes}")
        return False

    def run(self, size: int, designs: Sequence[str]) -> None:
        with ExitStack() as stack:
            lanes: list[_Lane] = []
            for design in designs:
                self._tell(f"{size:,} parameters: {design}, one round of {self._options.nodes}")
                process = stack.enter_context(DesignProcess(design, self._home))
                try:
                    lanes.append(self._prepare(process, size))
                except BenchmarkError as error:
                    self._skip(design, size, error.message, error.hint)
            for repeat in range(self._options.repeats):
                self._tell(f"{size:,} parameters: repeat {repeat + 1} of {self._options.repeats}")
                for lane in _rotated(lanes, repeat):
                    lane.repeats.append(
                        lane.process.ask("repeat", node=repeat % self._options.nodes)
                    )
            for lane in lanes:
                self.measurements.append(_measurement(lane, size))

    def _prepare(self, process: DesignProcess, size: int) -> _Lane:
        prepared = process.ask("prepare", size=size, nodes=self._options.nodes, seed=SEED)
        measured = process.ask("round")
        process.ask("repeat", node=0)
        return _Lane(process, prepared, measured)

    def _skip(self, design: str, size: int | None, why: str, hint: str | None = None) -> None:
        self.skipped.append(Skipped(design=design, size=size, reason=why, hint=hint))

    def _tell(self, text: str) -> None:
        options = self._options
        steps = len(options.sizes) * (len(options.designs) + options.repeats)
        self._progress.doing(text, self._done, steps)
        self._done += 1


def _rotated(lanes: Sequence[_Lane], turn: int) -> Iterable[_Lane]:
    first = turn % len(lanes) if lanes else 0
    return [*lanes[first:], *lanes[:first]]


def _measurement(lane: _Lane, size: int) -> Measurement:
    shares = lane.process.ask("shares")["shares"]
    return Measurement(
        design=lane.process.design,
        size=size,
        arrays=len(lane.prepared["layers"]),
        error_bound=lane.prepared["error_bound"],
        encrypt_s=tuple(r["encrypt_s"] for r in lane.repeats),
        add_s=tuple(r["add_s"] for r in lane.repeats),
        decrypt_s=tuple(r["decrypt_s"] for r in lane.repeats),
        shares=None if shares is None else Shares(**shares),
        **lane.round,
    )
