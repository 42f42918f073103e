"""What travels between a requester and a service: what was signed, and the encrypted frame.

::

    request   "TPI1" | length of the statement | signed PredictionRequest | request frame
    answer    "TPO1" | length of the statement | receipt and mask seed    | response frame

The length is 4 bytes, little-endian. What is signed stands as canonical JSON (RFC 8785), in one
byte form only; an answer's is ``{"mask_seed": null or hex, "receipt": ...}``. Frames are those of
`twopm_flower.privacy.linear_frame` and are not looked into here.
"""

import struct
from typing import Any, Final

from twopm_flower.errors import RecordError
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.inference import PredictionReceipt, PredictionRequest
from twopm_flower.records.statements import Signed, parse_signed, signed_type

OCTETS: Final = "application/octet-stream"
"""The media type of both."""
PROBLEM: Final = "application/problem+json"
"""The media type of a refusal (RFC 9457)."""
CLOCK_TOLERANCE_S: Final = 300
"""How far the time in what one side signed may be from the other side's, in seconds."""
REQUEST_MAGIC: Final = b"TPI1"
ANSWER_MAGIC: Final = b"TPO1"
MOST_STATEMENT_BYTES: Final = 16 * 1024
MASK_SEED_BYTES: Final = 32

_START = struct.Struct("<4sI")


def pack_request(signed: Signed[PredictionRequest], frame: bytes) -> bytes:
    """Return the body of a request."""
    return _packed(REQUEST_MAGIC, signed.to_bytes(), frame)


def unpack_request(body: bytes) -> tuple[Signed[PredictionRequest], bytes]:
    """Return what is signed, and the request frame; the signature is not checked here.

    Raises
    ------
    RecordError
        Not the body of a request.
    """
    statement, frame = _unpacked(REQUEST_MAGIC, body, "request")
    return signed_type(PredictionRequest).from_bytes(statement), frame


def pack_answer(receipt: Signed[PredictionReceipt], mask_seed: bytes | None, frame: bytes) -> bytes:
    """Return the body of an answer.

    Parameters
    ----------
    receipt : Signed[PredictionReceipt]
    mask_seed : bytes or None
        32 bytes where the service shows the seed of the mask, None as a rule.
    frame : bytes
        The response frame.
    """
    seed = None if mask_seed is None else "0x" + mask_seed.hex()
    statement = canonical_bytes({"mask_seed": seed, "receipt": receipt.to_json()})
    return _packed(ANSWER_MAGIC, statement, frame)


def unpack_answer(body: bytes) -> tuple[Signed[PredictionReceipt], bytes | None, bytes]:
    """Return the receipt, the seed of the mask and the response frame; nothing is checked.

    Raises
    ------
    RecordError
        Not the body of an answer.
    """
    statement, frame = _unpacked(ANSWER_MAGIC, body, "answer")
    value = parse_canonical(statement, what="answer")
    if not isinstance(value, dict) or value.keys() != {"mask_seed", "receipt"}:
        raise RecordError("an answer has exactly a receipt and a mask seed")
    return parse_signed(PredictionReceipt, value["receipt"]), _seed(value["mask_seed"]), frame


def _seed(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        seed = bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, TypeError, ValueError):
        seed = b""
    if len(seed) != MASK_SEED_BYTES or value != "0x" + seed.hex():
        raise RecordError(f"the seed of a mask is not {MASK_SEED_BYTES} bytes in hexadecimal")
    return seed


def _packed(magic: bytes, statement: bytes, frame: bytes) -> bytes:
    return _START.pack(magic, len(statement)) + statement + frame


def _unpacked(magic: bytes, body: bytes, what: str) -> tuple[bytes, bytes]:
    if len(body) < _START.size:
        raise RecordError(f"{len(body)} bytes are no {what}")
    found, length = _START.unpack_from(body)
    if found != magic:
        raise RecordError(f"the {what} starts with {found!r}, not {magic!r}")
    if length > MOST_STATEMENT_BYTES or _START.size + length > len(body):
        raise RecordError(f"the statement of the {what} cannot be {length} bytes long")
    end = _START.size + length
    return body[_START.size : end], body[end:]
