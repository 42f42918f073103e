"""Numbers as integers, and integers as short digits that have a sign each."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]


def rounded(values: Floats, bits: int) -> Integers:
    """Return ``round(2**bits * values)``, halves to even."""
    return np.rint(np.ldexp(np.asarray(values, np.float64), bits)).astype(np.int64)


def digits_of(values: Integers, digits: int, bits: int) -> Integers:
    """Return integers as digits to the base ``2**bits``, least first.

    Digits lie in ``[-2**(bits-1), 2**(bits-1))``; the last is whatever is left.

    Parameters
    ----------
    values : ndarray of int64, any shape
    digits, bits : int

    Returns
    -------
    ndarray of int64, shape (..., digits)
    """
    found, rest = [], values
    for _ in range(digits - 1):
        half = np.int64(1 << (bits - 1)) if bits else np.int64(0)
        digit = ((rest + half) & np.int64((1 << bits) - 1)) - half
        found.append(digit)
        rest = (rest - digit) >> np.int64(bits)
    return np.stack([*found, rest], axis=-1)


def rounded_up(value: int) -> int:
    """Return the least integer of three significant bits that is not less."""
    spare = max(0, value.bit_length() - 3)
    return -(-value >> spare) << spare
