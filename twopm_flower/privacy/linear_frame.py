"""The bytes that carry encrypted features to a service, and encrypted scores back.

A request holds a public seed, from which everybody grows the uniform polynomials a, and the
coefficients in use of ``c0 = (m << g) + e - a s``. The preset ``latency`` has one row of
features in coefficients ``offset .. offset + d`` of one polynomial, with encryptions of zero
on both sides (`LinearParameters.window` of them all together); ``batch`` has a polynomial
for each feature and each block of rows (`LinearParameters.block_rows`), the rows in its
coefficients. For secret weights
a public key follows: another seed, and the transform of ``-(a' s + e')``.

A response holds a residue for each score, and a polynomial, by its transform, for each group
of scores (``latency``) or each score and block (``batch``).

Whatever a peer sends is read here before anything is computed with it: form, parameters and
model, rows, length, range of every residue. All integers are little-endian, a residue takes 7
bytes, and there is exactly one encoding: ``encode(parse(data)) == data``.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from twopm_flower.errors import BindingError, FrameError, PrivacyError
from twopm_flower.privacy.frame import RESIDUE_BYTES, residues_to_bytes, words_from_bytes
from twopm_flower.privacy.linear_parameters import LinearParameters, Preset
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import Residues, as_residues
from twopm_flower.privacy.sampling import PUBLIC_SEED_BYTES
from twopm_flower.records.digest import tagged_digest

REQUEST_MAGIC: Final = b"2PMQ"
RESPONSE_MAGIC: Final = b"2PMS"
LINEAR_VERSION: Final = 1
PRESET_CODES: Final[dict[Preset, int]] = {"latency": 1, "batch": 2}
POLICY_CODES: Final = {"public": 1, "secret": 2}
MOST_ROWS: Final = 1 << 20

_REQUEST = struct.Struct("<4sHBB32s32sI32s")
_RESPONSE = struct.Struct("<4sHBB32sI")
REQUEST_HEADER_BYTES: Final = _REQUEST.size
RESPONSE_HEADER_BYTES: Final = _RESPONSE.size
_KEY_BYTES = PUBLIC_SEED_BYTES + RESIDUE_BYTES * RING_DEGREE


@dataclass(frozen=True, eq=False)
class LinearRequest:
    """Encrypted rows of features.

    Attributes
    ----------
    preset : {"latency", "batch"}
    rows : int
    parameters : LinearParameters
    model_digest : str
        The model that is asked.
    seed : bytes
        What the polynomials a are grown from.
    c0 : ndarray of uint64, shape (window,) or (d, rows)
        The coefficients in use.
    key_seed : bytes or None
        What the polynomial a' is grown from; for secret weights.
    public_key : ndarray of uint64, shape (2048,), or None
        The transform of ``-(a' s + e')``.
    digest : str
        What statements name the request by: the digest of its bytes, once they were read.
    """

    preset: Preset
    rows: int
    parameters: LinearParameters
    model_digest: str
    seed: bytes
    c0: Residues
    key_seed: bytes | None = None
    public_key: Residues | None = None
    digest: str = ""

    def to_bytes(self) -> bytes:
        """Return the frame."""
        header = _REQUEST.pack(
            REQUEST_MAGIC,
            LINEAR_VERSION,
            PRESET_CODES[self.preset],
            POLICY_CODES[self.parameters.policy],
            _word(self.parameters.identifier),
            _word(self.model_digest),
            self.rows,
            self.seed,
        )
        if self.key_seed is None or self.public_key is None:
            return header + residues_to_bytes(self.c0)
        key = self.key_seed + residues_to_bytes(self.public_key)
        return header + key + residues_to_bytes(self.c0)


@dataclass(frozen=True, eq=False)
class LinearResponse:
    """Encrypted scores.

    Attributes
    ----------
    scores : ndarray of uint64, shape (K D,) or (K D, rows)
    c1 : ndarray of uint64, shape (P, 2048) or (blocks * K D, 2048)
        Transforms of polynomials; of the preset ``batch`` those of a block together.
    """

    scores: Residues
    c1: Residues


def request_digest(data: bytes) -> str:
    """Return the digest of a request frame."""
    return tagged_digest("inference-request/v1", data)


def response_digest(data: bytes) -> str:
    """Return the digest of a response frame."""
    return tagged_digest("inference-response/v1", data)


def parse_request(
    data: bytes, parameters: LinearParameters, *, model_digest: str, max_rows: int
) -> LinearRequest:
    """Return the request in a frame.

    Parameters
    ----------
    data : bytes
        Whatever a peer sent.
    parameters : LinearParameters
    model_digest : str
        The model that is served.
    max_rows : int
        The most rows that are answered at once.

    Raises
    ------
    BindingError
        If the request is made with other parameters, or for another model.
    FrameError
        If anything else is malformed.
    """
    if len(data) < _REQUEST.size:
        raise FrameError(f"A request has at least {_REQUEST.size} bytes; this one has {len(data)}.")
    magic, version, preset_code, policy, bound, model, rows, seed = _REQUEST.unpack_from(data)
    preset = _check_start(magic, version, preset_code, REQUEST_MAGIC)
    if policy != POLICY_CODES[parameters.policy]:
        raise BindingError(
            f"The request is for weights of policy {policy}; the model's are {parameters.policy}."
        )
    for what, found, expected in (
        ("parameters", bound, parameters.identifier),
        ("model", model, model_digest),
    ):
        if found != _word(expected):
            raise BindingError(
                f"The request is for the {what} 0x{found.hex()}; served are {expected}.",
                hint="Ask the service for its model card again.",
            )
    if not 1 <= rows <= min(max_rows, MOST_ROWS) or (preset == "latency" and rows != 1):
        raise FrameError(
            f"A request of preset {preset} with {rows} rows is not answered.",
            hint=f"Ask for 1 row, or with the preset batch for at most {min(max_rows, MOST_ROWS)}.",
        )
    key_bytes = _KEY_BYTES if parameters.policy == "secret" else 0
    residues = parameters.request_residues(preset, rows)
    _check_length("request", data, _REQUEST.size + key_bytes + RESIDUE_BYTES * residues)
    body = memoryview(data)[_REQUEST.size :]
    key_seed, public_key = None, None
    if key_bytes:
        key_seed = bytes(body[:PUBLIC_SEED_BYTES])
        public_key = _residues(body[PUBLIC_SEED_BYTES:key_bytes], "The public key")
    c0 = _residues(body[key_bytes:], "The request")
    if preset == "batch":
        c0 = c0.reshape(parameters.features, rows)
    return LinearRequest(
        preset,
        rows,
        parameters,
        model_digest,
        seed,
        c0,
        key_seed,
        public_key,
        # There is one encoding only, so these are the bytes that the request would be written as.
        request_digest(data),
    )


def encode_response(request: LinearRequest, scores: Residues, c1: Residues) -> bytes:
    """Return the frame of the answer to a request, see `LinearResponse`."""
    header = _RESPONSE.pack(
        RESPONSE_MAGIC,
        LINEAR_VERSION,
        PRESET_CODES[request.preset],
        POLICY_CODES[request.parameters.policy],
        _word(request.digest),
        request.rows,
    )
    return header + residues_to_bytes(scores) + residues_to_bytes(c1)


def parse_response(
    data: bytes, parameters: LinearParameters, *, preset: Preset, rows: int, digest: str
) -> LinearResponse:
    """Return the response in a frame.

    Parameters
    ----------
    data : bytes
        Whatever a peer sent.
    parameters : LinearParameters
    preset : {"latency", "batch"}
    rows : int
    digest : str
        The request that it has to answer.

    Raises
    ------
    BindingError
        If it answers another request.
    FrameError
        If anything else is malformed.
    """
    if len(data) < _RESPONSE.size:
        raise FrameError(
            f"A response has at least {_RESPONSE.size} bytes; this one has {len(data)}."
        )
    magic, version, preset_code, policy, answered, count = _RESPONSE.unpack_from(data)
    found = _check_start(magic, version, preset_code, RESPONSE_MAGIC)
    if answered != _word(digest):
        raise BindingError(f"The response answers the request 0x{answered.hex()}, not {digest}.")
    if (found, policy, count) != (preset, POLICY_CODES[parameters.policy], rows):
        raise FrameError(
            f"The response is of preset {found}, policy {policy} and {count} rows; asked for were "
            f"{preset}, {parameters.policy} and {rows}."
        )
    residues, polynomials = parameters.response_residues(preset, rows)
    _check_length(
        "response", data, _RESPONSE.size + RESIDUE_BYTES * (residues + RING_DEGREE * polynomials)
    )
    both = _residues(memoryview(data)[_RESPONSE.size :], "The response")
    scores, c1 = both[:residues], both[residues:].reshape(polynomials, RING_DEGREE)
    return LinearResponse(
        scores if preset == "latency" else scores.reshape(parameters.rows, rows), c1
    )


def _check_start(found: bytes, version: int, preset_code: int, magic: bytes) -> Preset:
    if found != magic:
        raise FrameError(f"The frame starts with {found!r} instead of {magic!r}.")
    if version != LINEAR_VERSION:
        raise FrameError(
            f"The frame has version {version}; this release reads {LINEAR_VERSION}.",
            hint="Run one release of twopm-flower everywhere.",
        )
    for preset, code in PRESET_CODES.items():
        if code == preset_code:
            return preset
    raise FrameError(f"There is no preset {preset_code}.")


def _check_length(what: str, data: bytes, needed: int) -> None:
    if len(data) != needed:
        raise FrameError(f"The {what} has {len(data)} bytes; its counts take {needed}.")


def _residues(data: memoryview, what: str) -> Residues:
    try:
        return as_residues(words_from_bytes(data), what)
    except PrivacyError as error:
        raise FrameError(str(error)) from error


def _word(digest: str) -> bytes:
    word = bytes.fromhex(digest.removeprefix("0x"))
    if len(word) != 32:
        raise FrameError(f"{digest!r} is not a digest of 32 bytes.")
    return word


def used_rows(parameters: LinearParameters, block: int, rows: int) -> slice:
    """Return the rows of a block of a request of the preset ``batch``."""
    size = parameters.block_rows
    return slice(block * size, min(rows, (block + 1) * size))


def score_positions(parameters: LinearParameters, polynomial: int) -> np.ndarray:
    """Return the coefficients of a response's polynomial that carry scores, in their order."""
    first = polynomial * parameters.group
    count = min(parameters.group, parameters.rows - first)
    start = parameters.offset + parameters.features - 1
    return start + parameters.features * np.arange(count)
