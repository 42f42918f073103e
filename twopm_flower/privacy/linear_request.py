"""A requester's side of encrypted predictions: encrypt rows of features, open their scores.

The secret and the seed are drawn anew for each request. The secret is ternary, errors are of
the centred binomial distribution of 21: with degree 2048 and a modulus of 54 bits these are
SEAL's parameters of 128-bit security. What an answer opens as are exact integers, and the noise
that is left of it stays with the requester.
"""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import DataError, PrivacyError
from twopm_flower.privacy.keys import Unprintable
from twopm_flower.privacy.linear_digits import Integers, rounded
from twopm_flower.privacy.linear_frame import (
    LinearRequest,
    parse_response,
    request_digest,
    score_positions,
    used_rows,
)
from twopm_flower.privacy.linear_parameters import LINEAR_NOISE, LinearParameters, Preset
from twopm_flower.privacy.linear_service import INPUT_ROWS, KEY_ROWS, residues_of
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues, add_mod, centred, mul_mod
from twopm_flower.privacy.ring import Ring, ring_for
from twopm_flower.privacy.sampling import (
    PUBLIC_SEED_BYTES,
    centred_binomial,
    fresh_stream,
    uniform_rows,
)

_Q = np.uint64(MODULUS)


class RequestKey(Unprintable):
    """What opens the answer to one request, and that alone.

    Parameters
    ----------
    secret : ndarray of uint64, shape (2048,)
        The transform of the secret.
    parameters : LinearParameters
    preset : {"latency", "batch"}
    rows : int
    digest : str
        Of the request.
    """

    def __init__(
        self,
        secret: Residues,
        parameters: LinearParameters,
        preset: Preset,
        rows: int,
        digest: str,
    ) -> None:
        self._secret = secret
        self.parameters = parameters
        self.preset: Preset = preset
        self.rows = rows
        self.digest = digest

    def __repr__(self) -> str:
        return f"RequestKey({self.preset}, {self.rows} rows, request={self.digest}, <redacted>)"

    def masks(self, c1: Residues, ring: Ring) -> Residues:
        """Return the products of polynomials, given by their transforms, and the secret."""
        return ring.products(c1.copy(), self._secret)


def encrypt_rows(
    x: npt.NDArray[Any], parameters: LinearParameters, preset: Preset, *, model_digest: str
) -> tuple[bytes, RequestKey]:
    """Return a request for the scores of rows of features, and what opens its answer.

    Parameters
    ----------
    x : ndarray of float, shape (n, d)
        Each feature within its range.
    parameters : LinearParameters
    preset : {"latency", "batch"}
        ``latency`` takes one row.
    model_digest : str
        The model that is asked.

    Raises
    ------
    DataError
        If rows have another shape, or a feature is not a number or out of range; the feature
        is named, its value never.
    """
    values = np.asarray(x, np.float64)
    _check_rows(values, parameters, preset)
    carried = rounded(values, parameters.input_bits)
    limits = np.array(parameters.limits, np.int64)
    beyond = np.abs(carried) > limits
    if beyond.any():
        row, feature = np.argwhere(beyond)[0]
        raise DataError(
            f"Feature {feature} of row {row} is out of the range that it was published with.",
            hint="Encode rows with the published encoder.",
        )
    carried <<= np.int64(parameters.guard_bits)
    seed = os.urandom(PUBLIC_SEED_BYTES)
    stream = fresh_stream()
    signs = (stream.take(RING_DEGREE) % np.uint64(3)).astype(np.int64) - 1
    ring = ring_for(1 if preset == "latency" else parameters.features * parameters.blocks(len(x)))
    secret: Residues = ring.transform(residues_of(signs)[None])[0]
    if preset == "latency":
        c0 = _encrypt_one(carried[0], parameters, seed, secret, ring)
    else:
        c0 = _encrypt_many(carried, parameters, seed, secret, ring)
    key_seed, public_key = None, None
    if parameters.policy == "secret":
        key_seed = os.urandom(PUBLIC_SEED_BYTES)
        error = residues_of(centred_binomial(fresh_stream(), RING_DEGREE, LINEAR_NOISE))
        a = uniform_rows(key_seed, 0, 1, KEY_ROWS)
        total = add_mod(mul_mod(a, secret), ring.transform(error[None]))[0]
        public_key = np.where(total == 0, total, _Q - total)
    request = LinearRequest(
        preset, len(values), parameters, model_digest, seed, c0, key_seed, public_key
    )
    data = request.to_bytes()
    return data, RequestKey(secret, parameters, preset, len(values), request_digest(data))


def open_scores(response: bytes, key: RequestKey) -> npt.NDArray[np.float64]:
    """Return the scores in a response: logits, before any link.

    What does not open as scores is refused. A wrong residue may open as another score, all the
    same: that an answer is right, its receipt shows to whoever knows the weights.

    Parameters
    ----------
    response : bytes
        Whatever the service sent.
    key : RequestKey

    Returns
    -------
    ndarray of float64, shape (n, K)

    Raises
    ------
    FrameError
        If the response is malformed, or answers another request.
    PrivacyError
        If it does not open as scores: no honest service computed it.
    """
    parameters = key.parameters
    found = parse_response(
        response, parameters, preset=key.preset, rows=key.rows, digest=key.digest
    )
    masks = key.masks(found.c1, ring_for(len(found.c1)))
    if key.preset == "latency":
        phases = np.concatenate(
            [row[score_positions(parameters, index)] for index, row in enumerate(masks)]
        )[:, None]
        total = add_mod(found.scores[:, None], phases)
    else:
        by_block = masks.reshape(-1, parameters.rows, RING_DEGREE)
        total = np.empty((parameters.rows, key.rows), np.uint64)
        for block, rows in enumerate(by_block):
            used = used_rows(parameters, block, key.rows)
            total[:, used] = add_mod(found.scores[:, used], rows[:, : used.stop - used.start])
    return _logits(centred(total), parameters)


def _check_rows(values: npt.NDArray[np.float64], parameters: LinearParameters, preset: str) -> None:
    if values.ndim != 2 or values.shape[1] != parameters.features or not len(values):
        raise DataError(
            f"Rows of shape {values.shape} are not rows of {parameters.features} features."
        )
    if preset == "latency" and len(values) != 1:
        raise DataError(
            f"The preset latency takes one row, not {len(values)}.", hint="Use the preset batch."
        )
    if preset not in ("latency", "batch"):
        raise DataError(f"There is no preset {preset!r}.", hint="Choose latency or batch.")
    if not np.isfinite(values).all():
        row, feature = np.argwhere(~np.isfinite(values))[0]
        raise DataError(f"Feature {feature} of row {row} is not a finite number.")
    # Far beyond every range, rounding to integers would not even be defined.
    reach = 2.0 ** (40 - parameters.input_bits)
    far = np.abs(values) > np.maximum(reach, 1.0)
    if far.any():
        row, feature = np.argwhere(far)[0]
        raise DataError(
            f"Feature {feature} of row {row} is out of the range that it was published with."
        )


def _encrypt_one(
    carried: Integers, parameters: LinearParameters, seed: bytes, secret: Residues, ring: Ring
) -> Residues:
    phase = centred_binomial(fresh_stream(), parameters.window, LINEAR_NOISE)
    phase[parameters.offset : parameters.offset + parameters.features] += carried
    masks = ring.products(uniform_rows(seed, 0, 1, INPUT_ROWS), secret)[0]
    return add_mod(residues_of(phase), _Q - masks[: parameters.window])


def _encrypt_many(
    carried: Integers, parameters: LinearParameters, seed: bytes, secret: Residues, ring: Ring
) -> Residues:
    rows, features = carried.shape
    c0 = np.empty((features, rows), np.uint64)
    for block in range(parameters.blocks(rows)):
        used = used_rows(parameters, block, rows)
        count = used.stop - used.start
        noise = centred_binomial(fresh_stream(), features * count, LINEAR_NOISE)
        phase = carried[used].T + noise.reshape(features, count)
        a = uniform_rows(seed, block * features, features, INPUT_ROWS)
        c0[:, used] = add_mod(residues_of(phase), _Q - ring.products(a, secret)[:, :count])
    return c0


def _logits(phase: Integers, parameters: LinearParameters) -> npt.NDArray[np.float64]:
    """Return scores, shape (n, K), of opened coefficients, shape (K D, n)."""
    guard = np.int64(parameters.guard_bits)
    scores = (phase + (np.int64(1) << (guard - np.int64(1)))) >> guard
    noise = np.abs(phase - (scores << guard))
    if int(noise.max()) > parameters.noise or int(np.abs(scores).max()) > parameters.score_limit:
        raise PrivacyError(
            "The answer does not open as scores of a model with these parameters: the service "
            "computed something else.",
            hint="Check its receipt with `twopm verify --receipt`.",
        )
    digits = scores.reshape(parameters.classes, parameters.digits, -1)
    total = np.zeros((parameters.classes, digits.shape[2]), np.int64)
    for digit in range(parameters.digits):
        total += digits[:, digit] << np.int64(digit * parameters.digit_bits)
    return np.ldexp(total.T.astype(np.float64), -(parameters.input_bits + parameters.weight_bits))
