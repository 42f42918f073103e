"""The last step of opening large sums in one pass over the numbers, where numpy takes ten.

It does what its caller's numpy code does, bit for bit.
"""

from typing import Any

import numpy as np

from twopm_flower.privacy.compiled import compiled, inlined
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS

_Q = np.uint64(MODULUS)
_SIGNED_Q = np.int64(MODULUS)
_HALF_Q = np.int64(MODULUS // 2)


@inlined
def _rounded(c0: Any, mask: Any, guard_bits: Any) -> Any:
    """Return one coefficient, and what was rounded away."""
    total = c0 + mask
    phase = np.int64(min(total, total - _Q))
    phase -= _SIGNED_Q if phase > _HALF_Q else np.int64(0)
    rounded = (phase + (np.int64(1) << (guard_bits - np.int64(1)))) >> guard_bits
    return rounded, phase - (rounded << guard_bits)


@compiled
def round_rows(c0: Any, masks: Any, guard_bits: Any, carried: Any) -> Any:
    """Write ``(centred(c0 + masks) + 2**(g-1)) >> g`` to `carried`, but for each row's first.

    What is rounded away is added up squared as integers, in any order: it is below ``2**15``,
    of fewer than ``2**32`` coefficients.

    Parameters
    ----------
    c0, masks : ndarray of uint64, shape (m,)
        Residues modulo q, in rows of 2048, the last of them perhaps short.
    guard_bits : int64
    carried : ndarray of int64, shape (m - rows,)

    Returns
    -------
    largest : int64
        The largest magnitude of what was rounded away, the rows' first coefficients included.
    squares : int64
        The sum of its squares.
    """
    largest, squares, done = np.int64(0), np.int64(0), 0
    for start in range(0, c0.size, RING_DEGREE):
        row, mask = c0[start : start + RING_DEGREE], masks[start : start + RING_DEGREE]
        _, noise = _rounded(row[0], mask[0], guard_bits)
        largest = max(largest, abs(noise))
        squares += noise * noise
        out = carried[done : done + row.size - 1]
        for j in range(out.size):
            out[j], noise = _rounded(row[1 + j], mask[1 + j], guard_bits)
            largest = max(largest, abs(noise))
            squares += noise * noise
        done += out.size
    return largest, squares
