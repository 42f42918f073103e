"""Which machine a figure was measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

PACKAGES = ("twopm-flower", "numpy", "numba", "tenseal", "flwr")


class Machine(BaseModel):
    """A description that fits beside a table.

    Attributes
    ----------
    cpu : str
        The processor's model.
    cores : int
        How many of them this process may use.
    memory_bytes : int
        0 where the system does not say.
    system, python : str
    packages : dict of str to str
        Versions of the packages that matter here; those missing are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    packages: dict[str, str]

    def __str__(self) -> str:
        memory = f", {self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else ""
        return f"{self.cpu}, {self.cores} cores{memory}, {self.system}, Python {self.python}"


def this_machine() -> Machine:
    """Return a description of the machine that this process runs on."""
    return Machine(
        cpu=_cpu_model(),
        cores=_cores(),
        memory_bytes=_memory_figure("MemTotal"),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(),
    )


def free_memory() -> int:
    """Return the bytes of memory that programs can still have; 0 where it is not said."""
    return _memory_figure("MemAvailable")


def _cpu_model() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_figure(name: str) -> int:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 0


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
