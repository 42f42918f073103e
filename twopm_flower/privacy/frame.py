"""The bytes that carry ciphertexts between a node and the server.

Whatever a peer sends is read here, in this order, before any of it reaches native code:

1. frame: magic, version, backend;
2. length: the counts are the ones that parameters and layout give, and not a byte is over;
3. range: every residue is below the modulus;
4. key id; 5. parameters; 6. layout; 7. binding: task, round, attempt, node.

All integers are little-endian. A residue takes 7 bytes. There is exactly one encoding of
a ciphertext: ``encode(parse(data)) == data`` for all data that `parse` accepts.
"""

import struct
from dataclasses import dataclass, replace

import numpy as np

from twopm_flower.errors import BindingError, FrameError, PrivacyError
from twopm_flower.privacy.binding import ZERO_NODE, FrameContext
from twopm_flower.privacy.ciphertext import SEED_BYTES, Ciphertext, SeededCiphertext
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.parameters import RING_DEGREE, AdditiveParameters
from twopm_flower.privacy.residues import Residues
from twopm_flower.privacy.room import room_for

__all__ = [
    "FrameContext",
    "encode_aggregate",
    "encode_update",
    "parse_aggregate",
    "parse_update",
    "residues_to_bytes",
    "words_from_bytes",
]

UPDATE_MAGIC = b"2PMU"
AGGREGATE_MAGIC = b"2PMA"
VERSION = 1
BACKEND_CODES = {"bfv": 1, "plaintext": 2, "one-time-key": 3}
RESIDUE_BYTES = 7
_RESIDUE_MASK = np.uint64((1 << 8 * RESIDUE_BYTES) - 1)
_BLOCK = 1 << 15

_START = struct.Struct("<4sHH")
_PLACE = struct.Struct("<32sQI")
_NODE = struct.Struct("<20s")
_MATERIAL = struct.Struct("<32s32s32s")
_COUNTS = struct.Struct("<IIQ")
UPDATE_HEADER_BYTES = _START.size + _PLACE.size + _NODE.size + _MATERIAL.size + _COUNTS.size
AGGREGATE_HEADER_BYTES = UPDATE_HEADER_BYTES - _NODE.size

_BOUND = (
    ("key_id", "encrypted under key"),
    ("parameters_id", "made with parameters"),
    ("layout_digest", "laid out as"),
    ("task_id", "bound to task"),
    ("round", "bound to round"),
    ("attempt", "bound to attempt"),
    ("node", "bound to node"),
)


def encode_update(
    context: FrameContext, ciphertext: SeededCiphertext, backend: str = "bfv"
) -> bytes:
    """Return the frame of a node's update."""
    rows, coefficients = len(ciphertext.seeds), ciphertext.c0.size
    body = ciphertext.seeds.tobytes() + residues_to_bytes(ciphertext.c0)
    return (
        _START.pack(UPDATE_MAGIC, VERSION, BACKEND_CODES[backend])
        + context.update_bytes
        + _COUNTS.pack(rows, coefficients, len(body))
        + body
    )


def parse_update(
    data: bytes, expected: FrameContext, parameters: AdditiveParameters, layout: Layout
) -> SeededCiphertext:
    """Return the ciphertext of the frame `data` of the update that is `expected`.

    Raises
    ------
    FrameError
        If anything is malformed, or belongs anywhere else.
    """
    header = _read_header(data, UPDATE_MAGIC, parameters)
    rows, coefficients = _check_counts(header, parameters, layout)
    body = memoryview(data)[UPDATE_HEADER_BYTES:]
    _check_length(header, body, rows * SEED_BYTES + coefficients * RESIDUE_BYTES)
    seeds = np.frombuffer(body, np.uint8, rows * SEED_BYTES).reshape(rows, SEED_BYTES)
    try:
        ciphertext = SeededCiphertext(words_from_bytes(body[seeds.size :]), seeds)
    except PrivacyError as error:
        raise FrameError(str(error)) from error
    if header.bound != expected.update_bytes:
        raise _bound_elsewhere(header, expected)
    return ciphertext


def encode_aggregate(context: FrameContext, ciphertext: Ciphertext, backend: str = "bfv") -> bytes:
    """Return the frame of a round's sum; the context's node is left out."""
    body = residues_to_bytes(ciphertext.c0) + residues_to_bytes(ciphertext.c1.ravel())
    return (
        _START.pack(AGGREGATE_MAGIC, VERSION, BACKEND_CODES[backend])
        + context.aggregate_bytes
        + _COUNTS.pack(len(ciphertext.c1), ciphertext.c0.size, len(body))
        + body
    )


def parse_aggregate(
    data: bytes, expected: FrameContext, parameters: AdditiveParameters, layout: Layout
) -> Ciphertext:
    """Return the sum in the frame `data` of the round that is `expected`.

    Raises
    ------
    FrameError
        If anything is malformed, or belongs anywhere else; also where a row of c1 is 0
        throughout, for such a "ciphertext" hides nothing and nobody encrypted it.
    """
    header = _read_header(data, AGGREGATE_MAGIC, parameters)
    rows, coefficients = _check_counts(header, parameters, layout)
    body = memoryview(data)[AGGREGATE_HEADER_BYTES:]
    count = coefficients + rows * RING_DEGREE
    _check_length(header, body, count * RESIDUE_BYTES)
    c0 = words_from_bytes(body[: coefficients * RESIDUE_BYTES])
    c1 = words_from_bytes(body[coefficients * RESIDUE_BYTES :]).reshape(rows, RING_DEGREE)
    try:
        ciphertext = Ciphertext(c0, c1)
    except PrivacyError as error:
        raise FrameError(str(error)) from error
    if rows and not c1.any(axis=1).all():
        raise FrameError(f"Row {int(np.argmin(c1.any(axis=1)))} is transparent: its c1 is 0.")
    if header.bound != expected.aggregate_bytes:
        raise _bound_elsewhere(header, replace(expected, node=ZERO_NODE))
    return ciphertext


@dataclass(frozen=True)
class _Header:
    bound: bytes
    rows: int
    coefficients: int
    body_length: int


def _read_header(data: bytes, magic: bytes, parameters: AdditiveParameters) -> _Header:
    size = UPDATE_HEADER_BYTES if magic == UPDATE_MAGIC else AGGREGATE_HEADER_BYTES
    if len(data) < size:
        raise FrameError(f"A frame has at least {size} bytes; this one has {len(data)}.")
    found, version, backend = _START.unpack_from(data)
    if found != magic:
        raise FrameError(f"The frame starts with {found!r} instead of {magic!r}.")
    if version != VERSION:
        raise FrameError(
            f"The frame has version {version}; this release reads {VERSION}.",
            hint="Run one release of twopm-flower everywhere.",
        )
    if backend != BACKEND_CODES[parameters.backend]:
        raise FrameError(
            f"The frame is of backend {backend}; the task uses "
            f"{BACKEND_CODES[parameters.backend]} ({parameters.backend})."
        )
    counts = size - _COUNTS.size
    return _Header(bytes(data[_START.size : counts]), *_COUNTS.unpack_from(data, counts))


def _check_counts(
    header: _Header, parameters: AdditiveParameters, layout: Layout
) -> tuple[int, int]:
    rows, coefficients = parameters.rows(layout.size), parameters.wire_coefficients(layout.size)
    if (header.rows, header.coefficients) != (rows, coefficients):
        raise FrameError(
            f"The frame announces {header.coefficients} coefficients in {header.rows} rows; "
            f"the layout takes {coefficients} in {rows}."
        )
    return rows, coefficients


def _check_length(header: _Header, body: memoryview, needed: int) -> None:
    if header.body_length != needed or len(body) != needed:
        raise FrameError(
            f"The frame announces {header.body_length} bytes and carries {len(body)}; "
            f"its counts take {needed}."
        )


def _bound_elsewhere(header: _Header, expected: FrameContext) -> BindingError:
    """Return the error that names what a frame is bound to and should not be."""
    task, number, attempt = _PLACE.unpack_from(header.bound)
    node, material = header.bound[_PLACE.size : -_MATERIAL.size], header.bound[-_MATERIAL.size :]
    key, parameters_id, layout = _MATERIAL.unpack(material)
    found = FrameContext(
        task_id=task.hex(),
        round=number,
        attempt=attempt,
        node=node.hex() or ZERO_NODE,
        key_id=key.hex(),
        parameters_id=parameters_id.hex(),
        layout_digest=layout.hex(),
    )
    name, what = next(n for n in _BOUND if getattr(found, n[0]) != getattr(expected, n[0]))
    return BindingError(
        f"The ciphertext is {what} {getattr(found, name)}; expected was {getattr(expected, name)}."
    )


def residues_to_bytes(residues: Residues) -> bytes:
    """Return residues in C order, 7 bytes each, little-endian."""
    words = np.ascontiguousarray(residues, "<u8").ravel()
    return np.ndarray(words.shape, "V7", words, strides=(8,)).tobytes()


def words_from_bytes(data: memoryview) -> Residues:
    """Return the words of 7 bytes, in any number, that `residues_to_bytes` wrote.

    Whether they are residues is for the caller to check.
    """
    residues = room_for(len(data) // RESIDUE_BYTES)
    if residues.size:
        # Each word is read with one byte of the next one, but the last has no next one.
        words = np.ndarray(residues.size - 1, "<u8", data, strides=(RESIDUE_BYTES,))
        for start in range(0, words.size, _BLOCK):
            block = residues[start : min(start + _BLOCK, words.size)]
            # One step would take twice the time: numpy buffers what it computes of odd bytes.
            block[...] = words[start : start + _BLOCK]
            block &= _RESIDUE_MASK
        residues[-1] = int.from_bytes(data[-RESIDUE_BYTES:], "little")
    return residues
