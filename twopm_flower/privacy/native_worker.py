"""The process that grows seeds with native code, so that a crash there ends it alone.

`twopm_flower.privacy.isolated` starts it and speaks with it over its standard input and
output. Every message is a header and a payload; integers are little-endian::

    "2PMW" | kind u8 | 3 zero bytes | length of the payload u64 | payload

    to the worker     1  open     canonical JSON of the encryption parameters
                      2  expand   seeds, 64 bytes a row
    from the worker   3  done     open: nothing; expand: c1, 2048 residues a row, u64
                      4  refused  why, as UTF-8

It answers one message after another and ends when its input does. It holds no key, and
what it answers is as little trusted as what it was sent: the digest that the node signed
is compared with what it grew.
"""

import os
import signal
import struct
import sys
from typing import BinaryIO, cast

import numpy as np

from twopm_flower.errors import TwopmError
from twopm_flower.privacy.backend import Backend, open_backend
from twopm_flower.privacy.ciphertext import SEED_BYTES, SeededCiphertext
from twopm_flower.privacy.parameters import RING_DEGREE, AdditiveParameters
from twopm_flower.records.canonical import parse_canonical

MAGIC = b"2PMW"
HEADER = struct.Struct("<4sB3xQ")
OPEN, EXPAND, DONE, REFUSED = 1, 2, 3, 4
ROW_BYTES = 8 * RING_DEGREE
MAX_PAYLOAD_BYTES = 1 << 28
"""4 million seeds: far more than a layout can ask for."""

_BATCH_ROWS = 64


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer the messages of `source` on `sink` until there are no more.

    Raises
    ------
    ValueError
        If a message is not one of the above: the other side is not ours.
    """
    backend: Backend | None = None
    while header := source.read(HEADER.size):
        kind, payload = _payload(header, source)
        try:
            if kind == OPEN:
                parameters = parse_canonical(payload, what="encryption parameters")
                backend = open_backend(AdditiveParameters.from_dict(parameters))
                sink.write(HEADER.pack(MAGIC, DONE, 0))
            elif kind == EXPAND and backend is not None:
                _expand(backend, payload, sink)
            else:
                raise ValueError(f"a message of kind {kind} is not expected here")
        except TwopmError as error:
            why = str(error).encode()
            sink.write(HEADER.pack(MAGIC, REFUSED, len(why)) + why)
        sink.flush()


def _payload(header: bytes, source: BinaryIO) -> tuple[int, bytes]:
    if len(header) != HEADER.size:
        raise ValueError(f"a header ends after {len(header)} bytes")
    magic, kind, length = HEADER.unpack(header)
    if magic != MAGIC or length > MAX_PAYLOAD_BYTES:
        raise ValueError(f"the header {header.hex()} is not one of ours")
    payload = source.read(length)
    if len(payload) != length:
        raise ValueError(f"a payload of {length} bytes ends after {len(payload)}")
    return kind, payload


def _expand(backend: Backend, payload: bytes, sink: BinaryIO) -> None:
    seeds = np.frombuffer(payload, np.uint8).reshape(-1, SEED_BYTES)
    for start in range(0, len(seeds), _BATCH_ROWS):
        batch = seeds[start : start + _BATCH_ROWS]
        unused = np.zeros(len(batch) * RING_DEGREE, np.uint64)
        grown = backend.expand(SeededCiphertext(unused, batch)).c1
        if start == 0:
            sink.write(HEADER.pack(MAGIC, DONE, len(seeds) * ROW_BYTES))
        sink.write(np.ascontiguousarray(grown, "<u8").data)


def main() -> None:
    """Serve the process that started this one."""
    # An interrupt from the terminal is the server's to handle; it closes our input then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not end up between two messages.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(answers, "wb") as sink:
        try:
            serve(sys.stdin.buffer, cast(BinaryIO, sink))
        except BrokenPipeError:
            # Nobody waits for the answer any more, and closing the sink would say so again.
            os._exit(0)


if __name__ == "__main__":
    main()
