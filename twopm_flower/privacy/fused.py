"""Steps of opening large sums that pass over the numbers once, where numpy takes ten passes.

Each does what its caller's numpy code does, bit for bit, and is worth the half second that
importing the compiler takes from some ten thousands of coefficients on.
"""

from typing import Any

import numpy as np

from twopm_flower.privacy.compiled import compiled
from twopm_flower.privacy.residues import MODULUS

_Q = np.uint64(MODULUS)
_SIGNED_Q = np.int64(MODULUS)
_HALF_Q = np.int64(MODULUS // 2)


@compiled
def round_phases(c0: Any, masks: Any, guard_bits: Any, out: Any) -> Any:
    """Write ``(centred(c0 + masks) + 2**(g-1)) >> g`` to `out`.

    Parameters
    ----------
    c0, masks : ndarray of uint64, shape (m,)
        Residues modulo q.
    guard_bits : int64
    out : ndarray of int64, shape (m,)

    Returns
    -------
    largest : int64
        The largest magnitude of what was rounded away.
    squares : float64
        The sum of its squares, in the order of the coefficients.
    """
    half = np.int64(1) << (guard_bits - np.int64(1))
    largest, squares = np.int64(0), 0.0
    for j in range(c0.size):
        total = c0[j] + masks[j]
        phase = np.int64(min(total, total - _Q))
        if phase > _HALF_Q:
            phase -= _SIGNED_Q
        rounded = (phase + half) >> guard_bits
        noise = phase - (rounded << guard_bits)
        largest = max(largest, abs(noise))
        squares += float(noise) * float(noise)
        out[j] = rounded
    return largest, squares


@compiled
def split_field(rest: Any, width: Any, values: Any) -> Any:
    """Take the lowest signed field of `width` bits off each coefficient of `rest`.

    Parameters
    ----------
    rest : ndarray of int64, shape (m,)
        Replaced by what is left of the coefficients.
    width : int64
    values : ndarray of int64, shape (m,)
        Where the fields go.

    Returns
    -------
    smallest, largest : int64
        Of the fields.
    """
    half, mask = np.int64(1) << (width - np.int64(1)), (np.int64(1) << width) - np.int64(1)
    smallest, largest = half, -half
    for j in range(rest.size):
        value = ((rest[j] + half) & mask) - half
        rest[j] = (rest[j] - value) >> width
        values[j] = value
        smallest, largest = min(smallest, value), max(largest, value)
    return smallest, largest
