"""Arithmetic on vectors of residues modulo the ciphertext modulus, in numpy alone.

Adding two ciphertexts is adding their residues modulo `MODULUS`, so whoever has numpy can
redo the server's sum, and a fingerprint of a sum is the sum of the fingerprints.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy.room import room_for
from twopm_flower.records.digest import tagged_digest

MODULUS = 0x3FFFFFFFFED001
"""The prime q, 54 bits: the one that SEAL chooses for ring degree 2048."""

RESIDUE_BITS = 54
CHALLENGES = 3
"""How many points a fingerprint is taken at: a wrong sum of m residues passes all of
them with probability at most ``(m / q) ** 3``."""

Residues = npt.NDArray[np.uint64]

_Q = np.uint64(MODULUS)
_SIGNED_Q = np.int64(MODULUS)
_INVERSE_Q = 1.0 / MODULUS
_BLOCK = 1 << 14
_ADDED = 1 << 15
_LIMBS, _LIMB_BITS = 3, 18
_LIMB_MASK = np.uint64((1 << _LIMB_BITS) - 1)
_LIMB_WEIGHTS = np.array(
    [[[1 << _LIMB_BITS * (i + j) for j in range(_LIMBS)]] for i in range(_LIMBS)], object
)


def as_residues(values: npt.NDArray[Any], what: str) -> Residues:
    """Return a read-only view of `values` after checking that each is a residue.

    Parameters
    ----------
    values : ndarray of uint64, any shape
    what : str
        How to call the array in an error.

    Raises
    ------
    PrivacyError
        If the dtype is not uint64 or a value is not below `MODULUS`.
    """
    if values.dtype != np.uint64:
        raise PrivacyError(f"{what} holds {values.dtype}, not uint64 residues.")
    if values.size and int(values.max()) >= MODULUS:
        index = int(np.argmax(values.ravel() >= _Q))
        raise PrivacyError(
            f"{what}[{index}] is {int(values.ravel()[index])}, not below the modulus {MODULUS}."
        )
    view = values.view()
    view.setflags(write=False)
    return view


def add_mod(a: Residues, b: Residues) -> Residues:
    """Return ``(a + b) mod q``, element by element; both must hold residues."""
    total: Residues = a + b
    # The subtraction wraps around where the sum is still below q, and the minimum keeps the sum.
    reduced: Residues = np.minimum(total, total - _Q)
    return reduced


def sum_mod(vectors: Iterable[Residues]) -> Residues:
    """Return the sum of one or more residue vectors of one shape modulo q.

    Raises
    ------
    PrivacyError
        If there is no vector, or the shapes differ.
    """
    total: Residues | None = None
    for vector in vectors:
        if total is None:
            total = room_for(vector.size).reshape(vector.shape)
            total[...] = vector
        else:
            add_into(total, vector)
    if total is None:
        raise PrivacyError("There is nothing to add.", hint="Pass at least one ciphertext.")
    return total


def add_into(total: Residues, vector: Residues) -> None:
    """Add residues to others in place, modulo q.

    Raises
    ------
    PrivacyError
        If the shapes differ.
    """
    if vector.shape != total.shape:
        raise PrivacyError(
            f"Residues of shape {vector.shape} cannot be added to shape {total.shape}."
        )
    flat, more = total.reshape(-1), vector.reshape(-1)
    # Block by block: what is between stays in the cache, and takes no memory to speak of.
    reduced = np.empty(min(_ADDED, flat.size), np.uint64)
    for start in range(0, flat.size, _ADDED):
        block = flat[start : start + _ADDED]
        block += more[start : start + _ADDED]
        np.subtract(block, _Q, out=reduced[: block.size])
        np.minimum(block, reduced[: block.size], out=block)


def mul_mod(a: Residues, b: Residues | np.uint64) -> Residues:
    """Return ``(a * b) mod q``, element by element; both must hold residues.

    The product has 108 bits. A quotient estimated in float64 is wrong by a few units at
    most, so the difference fits 64 bits with its sign and wrap-around arithmetic gives it
    exactly; a second estimate and one conditional step bring it into ``[0, q)``.
    """
    estimate = (a.astype(np.float64) * b.astype(np.float64) * _INVERSE_Q).astype(np.uint64)
    rest = (a * b - estimate * _Q).view(np.int64)
    rest -= np.floor(rest * _INVERSE_Q).astype(np.int64) * _SIGNED_Q
    rest += (rest < 0) * _SIGNED_Q
    near: Residues = rest.view(np.uint64)
    reduced: Residues = np.minimum(near, near - _Q)
    return reduced


def centred(residues: Residues) -> npt.NDArray[np.int64]:
    """Return the representatives in ``[-(q - 1) / 2, (q - 1) / 2]`` of `residues`."""
    signed = residues.astype(np.int64)
    signed -= (signed > MODULUS // 2) * _SIGNED_Q
    return signed


def residue_bytes(residues: Residues) -> bytes:
    """Return `residues` in C order as unsigned 64-bit little-endian integers."""
    return residues.astype("<u8", copy=False).tobytes()


def fingerprint(residues: Residues, rho: int) -> int:
    """Return ``sum_j rho**j * residues[j - 1] mod q`` with j from 1.

    The fingerprint is linear: those of the parts add up to that of their sum, modulo q.
    Two different vectors of m residues share it for at most m of the q values of `rho`
    (a polynomial of degree m has at most m roots).

    Parameters
    ----------
    residues : ndarray of uint64, shape (m,)
    rho : int
        The challenge, in ``[1, q)``.

    Raises
    ------
    PrivacyError
        If `rho` is out of range.
    """
    return fingerprints_at(residues, (rho,))[0]


def fingerprints_at(residues: Residues, points: Sequence[int]) -> tuple[int, ...]:
    """Return the `fingerprint` at each of several challenges, in one pass over the residues.

    Residues and powers are cut into three limbs of 18 bits. A product of two limbs has 36
    bits, 2**14 of them add up to less than 2**50: float64 adds them exactly in any order, so
    a matrix product of limbs gives the same integers everywhere.

    Raises
    ------
    PrivacyError
        If a challenge is out of range.
    """
    for rho in points:
        if not 0 < rho < MODULUS:
            raise PrivacyError(f"Challenge {rho} is not in [1, {MODULUS}).")
    flat = residues.ravel()
    length = min(_BLOCK, max(1, flat.size))
    factors = np.concatenate([_limbs(_powers(rho, length)) for rho in points]).T
    steps = [pow(rho, _BLOCK, MODULUS) for rho in points]
    totals, shifts = [0] * len(points), [1] * len(points)
    for start in range(0, flat.size, length):
        block = flat[start : start + length]
        sums = (_limbs(block) @ factors[: block.size]).reshape(_LIMBS, len(points), _LIMBS)
        weighted = (sums.astype(np.int64).astype(object) * _LIMB_WEIGHTS).sum(axis=(0, 2))
        for index, value in enumerate(weighted):
            totals[index] = (totals[index] + shifts[index] * value) % MODULUS
            shifts[index] = shifts[index] * steps[index] % MODULUS
    return tuple(int(total) for total in totals)


def challenges(manifest_digest: str) -> tuple[int, ...]:
    """Return the `CHALLENGES` points that a manifest's fingerprints are taken at.

    Each is a 256-bit digest reduced to ``[1, q)``; the bias is below ``2**-200``.

    Parameters
    ----------
    manifest_digest : str
        ``0x`` and 64 hexadecimal digits.
    """
    digest = bytes.fromhex(manifest_digest.removeprefix("0x"))
    if len(digest) != 32:
        raise PrivacyError(f"{manifest_digest!r} is not a digest of 32 bytes.")
    return tuple(
        1 + int(tagged_digest("challenge/v1", digest, bytes([m])), 16) % (MODULUS - 1)
        for m in range(1, CHALLENGES + 1)
    )


def _limbs(values: Residues) -> npt.NDArray[np.float64]:
    """Return the limbs of residues, lowest first, shape (3, m)."""
    limbs = np.empty((_LIMBS, values.size))
    for index in range(_LIMBS):
        limbs[index] = (values >> np.uint64(_LIMB_BITS * index)) & _LIMB_MASK
    return limbs


def _powers(rho: int, count: int) -> Residues:
    """Return ``rho**1 .. rho**count`` modulo q, by doubling."""
    powers = np.empty(count, np.uint64)
    powers[0] = rho
    done = 1
    while done < count:
        more = min(done, count - done)
        factor = np.uint64(pow(rho, done, MODULUS))
        powers[done : done + more] = mul_mod(powers[:more], factor)
        done += more
    return powers
