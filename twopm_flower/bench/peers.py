"""Where the peers that we are measured against live: each in an environment of its own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from twopm_flower.errors import BenchmarkError

INSTALL_HINT = "Install it: twopm bench peers --install"
_INSTALL_TIMEOUT_S = 900


@dataclass(frozen=True)
class Peer:
    """A design that needs packages which do not go together with ours.

    Attributes
    ----------
    name : str
        The design.
    title : str
        What it is.
    module : str
        File in ``bench/standalone`` that measures it, without its ending.
    packages : tuple of str
        What pip installs, without dependencies: those that its code path needs are named.
    imports : tuple of str
        What must be importable where it is installed.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    imports: tuple[str, ...]

    def python(self, home: Path) -> Path:
        """Return the Python of its environment below a home."""
        folder = home / "bench" / self.name
        return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def installed(self, home: Path) -> bool:
        """Tell whether its environment has what it needs."""
        python = self.python(home)
        if not python.exists():
            return False
        code = "\n".join(f"import {name}" for name in self.imports)
        done = subprocess.run([python, "-c", code], capture_output=True, check=False)  # noqa: S603
        return done.returncode == 0

    def install(self, home: Path) -> None:
        """Make its environment, or complete it.

        Raises
        ------
        BenchmarkError
            If venv or pip fails; the last line of what they say is quoted.
        """
        python = self.python(home)
        folder = python.parents[1]
        _run([sys.executable, "-m", "venv", str(folder)], f"no environment in {folder}")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
        _run([*pip, *self.packages], f"{self.title} is not installed")
        if not self.installed(home):
            raise BenchmarkError(
                f"{self.title} was installed in {folder} but cannot be imported.",
                hint=f"Remove {folder} and try again.",
            )


NVFLARE = Peer(
    name="nvflare",
    title="NVFlare 2.9.0 with homomorphic encryption",
    module="nvflare_he",
    packages=(
        "nvflare==2.9.0",
        "tenseal==0.3.18",
        "numpy>=2",
        "cffi",
        "cryptography>=45",
        "grpcio>=1.62.1",
        "msgpack>=1.0.3",
        "psutil>=5.9.1",
        "pycparser",
        "PyYAML>=6",
        "typing_extensions",
    ),
    imports=("nvflare.app_opt.he.model_encryptor", "nvflare.lighter.impl.he"),
)
"""Its other dependencies are its servers'; nothing measured here imports them."""

PEERS = {peer.name: peer for peer in (NVFLARE,)}


def _run(command: list[str], failed: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"{failed}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise BenchmarkError(
            f"{failed}: {said}", hint="Check the network, and that pip works: pip download numpy"
        )
