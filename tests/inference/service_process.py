"""The real service in a process of its own, which shares nothing with the test's memory."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from lying_service import SERVICE, Service, small_service

from twopm_flower.inference.desk import Desk
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.inference.served_model import ServedModel
from twopm_flower.inference.service import create_app

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class RunningService:
    """Where a service is, and where it leaves something.

    Attributes
    ----------
    port : int
        On this machine.
    folder : Path
        Everything it writes, its log included.
    pid : int
    """

    port: int
    folder: Path
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def desk_of(service: Service, folder: Path, **changes: object) -> Desk:
    """Return the real desk for a model, with its receipts in a folder."""
    model = ServedModel.from_card(service.card, {"weight": service.weight, "bias": service.bias})
    return Desk(model, SERVICE, ReceiptStore(folder / "receipts.sqlite"), **changes)


@contextlib.contextmanager
def running_service(folder: Path) -> Iterator[RunningService]:
    """Run the service until the end of a block."""
    with (
        # Whoever connects before the process has come up waits in the socket's queue.
        socket.create_server(("127.0.0.1", 0)) as listening,
        (folder / "service.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process,
    ):
        yield RunningService(listening.getsockname()[1], folder, process.pid)
        process.terminate()


def main(folder: Path, listening: int) -> None:
    config = uvicorn.Config(create_app(desk_of(small_service(), folder)), log_level="trace")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listening)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
