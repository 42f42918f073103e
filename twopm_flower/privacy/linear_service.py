"""A service's answer to encrypted features: encrypted scores, which only the requester opens.

With the model's polynomial W~ (see `linear_model`) and a request ``c0 = (m << g) + e - a s``
the answer of the preset ``latency`` is::

    b_k = (c0 W~)_k + (B << g)   for the coefficients k that carry scores
    c1  = a W~

and that of ``batch`` sums up ciphertexts of features times weights. It follows from the
request and the weights: whoever has them redoes it bit for bit.

For secret weights an encryption of zero under the request's public key p is added, with u
ternary, e1 and e2 of the centred binomial distribution of 21, and f uniform over ``2**F``
values::

    b_k += (p u)_k + e1_k + f_k
    c1  += a' u + e2

All of it is drawn by AES from a mask seed, so the answer can be redone by whoever has that,
too. What an answer tells about the weights at most, whatever was sent:

- c1 tells nothing as long as ring learning with errors is hard with the secret u. Nobody
  chooses a', it is hashed from a seed.
- Each b_k is a residue, of less than 54 bits, and has a uniform number of F bits in it. So it
  tells at most 54 - F bits of everything else together: `leaked_bits` for a row of features.
- A requester that makes up p learns bits of u in place of bits of the weights. So no more
  scores share a mask than tell 512 of the 3246 bits of u.

An honest answer's scores are among those bits, so as many rows as there are features tell the
weights whatever is done: budgets are for that. One request gets one mask (seeds are derived from
its digest), so repeating it tells nothing more. There has been no independent review of this
construction.
"""

import hashlib
import hmac
from types import ModuleType
from typing import Final, Protocol, cast

import numpy as np

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy import linear_numpy
from twopm_flower.privacy.linear_digits import Integers
from twopm_flower.privacy.linear_frame import (
    LinearRequest,
    encode_response,
    score_positions,
    used_rows,
)
from twopm_flower.privacy.linear_model import PreparedLinear
from twopm_flower.privacy.linear_parameters import LINEAR_NOISE
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues, add_mod, mul_mod
from twopm_flower.privacy.sampling import WordStream, centred_binomial, uniform_rows
from twopm_flower.records.digest import ZERO_DIGEST, tagged_digest

INPUT_ROWS: Final = "inference-a"
KEY_ROWS: Final = "inference-key-a"
"""What the tags start with under which the polynomials a and a' are grown."""

MASK_SEED_BYTES: Final = 32
_WORD_BITS = 64
_Q = np.uint64(MODULUS)


class LinearRing(Protocol):
    """What `answer` computes with; `linear_numpy` describes and implements it."""

    def transform(self, polynomials: Residues, /) -> Residues:
        """Return the transforms of rows of coefficients."""

    def products(self, transformed: Residues, factor: Residues, /) -> Residues:
        """Return the coefficients of the rows times one factor, all of them transformed."""

    def weighted_sums(self, weights: Integers, residues: Residues, /) -> Residues:
        """Return a matrix of weights times one of residues."""


def answer(
    request: LinearRequest,
    model: PreparedLinear,
    mask_seed: bytes | None,
    ring: LinearRing | ModuleType = linear_numpy,
) -> bytes:
    """Return the response frame to a request.

    Parameters
    ----------
    request : LinearRequest
    model : PreparedLinear
    mask_seed : bytes or None
        32 secret bytes for secret weights, see `mask_seed_for`; None for public ones.
    ring : LinearRing, default `linear_numpy`
        `linear_numba` computes the same bits faster.

    Raises
    ------
    PrivacyError
        If the request was parsed with other parameters, or the mask seed is missing or too many.
    """
    if request.parameters != model.parameters:
        raise PrivacyError("The request was read with other parameters than the model's.")
    if (mask_seed is not None) != (model.parameters.policy == "secret"):
        raise PrivacyError(
            f"Weights are {model.parameters.policy}: an answer takes "
            f"{'a' if mask_seed is None else 'no'} mask seed."
        )
    if mask_seed is not None and len(mask_seed) != MASK_SEED_BYTES:
        raise PrivacyError(f"A mask seed has {MASK_SEED_BYTES} bytes, not {len(mask_seed)}.")
    given = cast(LinearRing, ring)
    both = _one_row if request.preset == "latency" else _many_rows
    return encode_response(request, *both(request, model, mask_seed, given))


def mask_seed_for(mask_key: bytes, request_digest: str) -> bytes:
    """Return the mask seed of a request: HMAC-SHA-256 of its digest under a service's key.

    A request that is repeated gets the same answer: its mask cannot be averaged out.
    """
    digest = bytes.fromhex(request_digest.removeprefix("0x"))
    return hmac.new(mask_key, b"inference-mask-seed/v1\0" + digest, hashlib.sha256).digest()


def mask_commitment(seed: bytes | None) -> str:
    """Return what a receipt says of a mask seed: its digest, or zeros where there is none."""
    return ZERO_DIGEST if seed is None else tagged_digest("inference-mask/v1", seed)


def _one_row(
    request: LinearRequest, model: PreparedLinear, mask_seed: bytes | None, ring: LinearRing
) -> tuple[Residues, Residues]:
    parameters = model.parameters
    length = parameters.group * parameters.features
    # Line k holds the coefficients of c0 that coefficient k of the product is made of.
    windows = np.lib.stride_tricks.sliding_window_view(request.c0, length)
    columns = np.ascontiguousarray(windows[:: parameters.features].T)
    scores = ring.weighted_sums(model.reversed_polynomials, columns).ravel()
    scores = add_mod(scores[: parameters.rows], model.carried_bias)
    a = uniform_rows(request.seed, 0, 1, INPUT_ROWS)
    c1 = mul_mod(a, model.transforms)
    if mask_seed is not None:
        for index in range(len(c1)):
            positions = score_positions(parameters, index)
            first = index * parameters.group
            part = scores[first : first + positions.size]
            mask, c1_mask = _mask(request, mask_seed, index, positions, ring)
            part[...] = add_mod(part, mask)
            c1[index] = add_mod(c1[index], c1_mask)
    return scores, c1


def _many_rows(
    request: LinearRequest, model: PreparedLinear, mask_seed: bytes | None, ring: LinearRing
) -> tuple[Residues, Residues]:
    parameters = model.parameters
    blocks, features, count = parameters.blocks(request.rows), parameters.features, parameters.rows
    scores = np.empty((count, request.rows), np.uint64)
    c1 = np.empty((blocks, count, RING_DEGREE), np.uint64)
    for block in range(blocks):
        used = used_rows(parameters, block, request.rows)
        sums = ring.weighted_sums(model.rows, request.c0[:, used])
        scores[:, used] = add_mod(sums, model.carried_bias[:, None])
        a = uniform_rows(request.seed, block * features, features, INPUT_ROWS)
        c1[block] = ring.weighted_sums(model.rows, a)
        if mask_seed is not None:
            positions = np.arange(used.stop - used.start)
            for row in range(count):
                number = block * count + row
                mask, c1_mask = _mask(request, mask_seed, number, positions, ring)
                scores[row, used] = add_mod(scores[row, used], mask)
                c1[block, row] = add_mod(c1[block, row], c1_mask)
    return scores, c1.reshape(blocks * count, RING_DEGREE)


def _mask(
    request: LinearRequest,
    mask_seed: bytes,
    number: int,
    positions: np.ndarray,
    ring: LinearRing,
) -> tuple[Residues, Residues]:
    """Return some coefficients of an encryption of zero, and the transform of the rest of it.

    The stream's key is ``tagged_digest("inference-mask-words/v1", seed, number as 8 bytes,
    little-endian)``. It gives, in this order: u, a word for each coefficient, which modulo 3
    and less 1 is it; e2; e1 and the flood of the positions, the flood from a word's highest
    bits.
    """
    if request.key_seed is None or request.public_key is None:
        raise PrivacyError("The request carries no public key to mask its answer with.")
    key = tagged_digest("inference-mask-words/v1", mask_seed, number.to_bytes(8, "little"))
    stream = WordStream(bytes.fromhex(key[2:]))
    u = (stream.take(RING_DEGREE) % np.uint64(3)).astype(np.int64) - 1
    e2 = centred_binomial(stream, RING_DEGREE, LINEAR_NOISE)
    e1 = centred_binomial(stream, positions.size, LINEAR_NOISE)
    bits = request.parameters.flood_bits
    flood = (stream.take(positions.size) >> np.uint64(_WORD_BITS - bits)).astype(np.int64)
    flood -= np.int64(1 << (bits - 1))
    u_transform, e2_transform = ring.transform(residues_of(np.stack([u, e2])))
    a = uniform_rows(request.key_seed, 0, 1, KEY_ROWS)[0]
    c1 = add_mod(mul_mod(a, u_transform), e2_transform)
    product = ring.products(u_transform[None].copy(), request.public_key)[0]
    return add_mod(product[positions], residues_of(e1 + flood)), c1


def residues_of(signed: Integers) -> Residues:
    """Return integers of less than q in magnitude modulo q."""
    words = signed.view(np.uint64)
    residues: Residues = np.minimum(words, words + _Q)
    return residues
