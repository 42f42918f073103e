"""Looks for a student's features in whatever a service gets: the wire, its memory, its files."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.residues import MODULUS

NUMBERS_AT_THE_END = 9
"""The last features are whole numbers and grades, side by side: enough to know a student by."""
PIECE = 1 << 22


def needles(features: np.ndarray, parameters: LinearParameters, line: bytes) -> dict[str, bytes]:
    """Return the forms in which one student could be lying about.

    Parameters
    ----------
    features : numpy.ndarray
        float32, shape (features,).
    parameters : LinearParameters
    line : bytes
        The student's line in a CSV.
    """
    exact = features.astype(np.float64)
    quantised = np.rint(exact * 2.0**parameters.input_bits).astype(np.int64)
    shifted = (quantised << parameters.guard_bits) % MODULUS
    forms = {
        "float32": features.astype(np.float32),
        "float64": exact,
        "int32": quantised.astype(np.int32),
        "int64": quantised,
        "residues": shifted.astype(np.uint64),
    }
    found = {"csv": line.strip(), "json": json.dumps(exact.tolist()[-NUMBERS_AT_THE_END:]).encode()}
    for name, values in forms.items():
        last = values[-NUMBERS_AT_THE_END:]
        found[name] = last.tobytes()
        found[f"{name}, backwards"] = last[::-1].tobytes()
    packed = [int(value).to_bytes(7, "little") for value in shifted[-NUMBERS_AT_THE_END:]]
    found["packed residues"] = b"".join(packed)
    found["packed residues, backwards"] = b"".join(reversed(packed))
    return found


def found_in(data: bytes, wanted: dict[str, bytes]) -> set[str]:
    """Return the names of the forms that are in some bytes."""
    return {name for name, needle in wanted.items() if needle in data}


def found_in_memory(pid: int, wanted: dict[str, bytes]) -> set[str]:
    """Return the names of the forms that are in what a process may write to."""
    overlap = max(map(len, wanted.values()))
    found: set[str] = set()
    searched = 0
    regions = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for region in regions:
            span = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", region)
            if span is None:
                continue
            start, end = (int(part, 16) for part in span.groups())
            while start < end:
                try:
                    memory.seek(start)
                    data = memory.read(min(PIECE, end - start))
                except (OSError, OverflowError):
                    break  # what the kernel itself put there
                if not data:
                    break
                searched += len(data)
                found |= found_in(data, wanted)
                start += len(data) if start + len(data) >= end else max(1, len(data) - overlap)
    assert searched > 10_000_000, "the memory of the process cannot be read"
    return found


def found_in_files(folder: Path, wanted: dict[str, bytes]) -> set[str]:
    """Return the names of the forms that are in any file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return set().union(*(found_in(path.read_bytes(), wanted) for path in files))


@contextlib.contextmanager
def wiretap(port: int) -> Iterator[tuple[int, bytearray]]:
    """Listen in front of a port; give the port to use instead, and all that goes either way."""
    heard, lock, pairs = bytearray(), threading.Lock(), []

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with lock:
                    heard.extend(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = tap.accept()
                far = socket.create_connection(("127.0.0.1", port))
                pairs.extend((near, far))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as tap:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield tap.getsockname()[1], heard
        tap.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in pairs:
        connection.close()
