"""What a process of the deployment finds around it: environment, a free port, signals."""

import os
import signal
import socket
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

LOOPBACK = "127.0.0.1"
_FLOWER_SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Flower asks for new work once a second by default; ten times shortens every exchange.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}


def flower_environment(flower_home: Path, **extra: str) -> dict[str, str]:
    """Return the environment for a process of Flower.

    Parameters
    ----------
    flower_home : Path
        The process's own ``FLWR_HOME``.
    **extra : str
        Further variables.

    Returns
    -------
    dict
        This process's environment without its ``TWOPM_`` and ``FLWR_`` variables, with this
        interpreter's commands first on ``PATH`` and with telemetry, update checks and
        installations at run time switched off.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TWOPM_", "FLWR_"))
    }
    path = os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)])
    # Small models gain nothing from threads, and several processes share the machine.
    threads = {"OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", "1")}
    home = {"FLWR_HOME": str(flower_home)}
    return {**kept, **_FLOWER_SETTINGS, **threads, **home, "PATH": path, **extra}


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free at this moment."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that every block is left in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
