"""Vectors and matrices of integers modulo 65537, the field that shares are in."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.privacy.parameters import RING_DEGREE

PRIME = 65537
"""2**16 + 1."""

Matrix = npt.NDArray[np.int64]

# 2**32 - 1 is a multiple of the prime, so this word alone would make small values likelier.
_REJECTED_WORD = np.uint32(0xFFFFFFFF)


def erase(*arrays: npt.NDArray[Any]) -> None:
    """Overwrite secret arrays with zeros: shares after they were sealed, added up or opened.

    Nothing here keeps copies, but the interpreter and numpy may have made some that are out of
    reach; this shortens the time that a secret is in memory, and promises no more.
    """
    for array in arrays:
        array.fill(0)


def uniform(rows: int, random_bytes: Callable[[int], bytes]) -> Matrix:
    """Return `rows` x 2048 independent, uniform elements of the field."""
    wanted = rows * RING_DEGREE
    words = np.frombuffer(random_bytes(4 * wanted), "<u4").copy()
    while (rejected := np.flatnonzero(words == _REJECTED_WORD)).size:
        words[rejected] = np.frombuffer(random_bytes(4 * rejected.size), "<u4")
    words %= np.uint32(PRIME)
    elements = words.astype(np.int64).reshape(rows, RING_DEGREE)
    erase(words)
    return elements


def product(left: Matrix, right: Matrix) -> Matrix:
    """Return the matrix product in the field.

    In floating point, because numpy multiplies integer matrices slowly. It is exact: a sum of
    780 products of field elements is below 2**42, and integers up to 2**53 are.
    """
    factor = right.astype(np.float64)
    exact = left.astype(np.float64) @ factor
    elements = exact.astype(np.int64)
    erase(factor, exact)
    elements %= PRIME
    return elements


def powers(points: Sequence[int], count: int) -> Matrix:
    """Return the powers 0 to `count` - 1 of each point, one row a point."""
    base = np.array(points, np.int64)
    table = np.ones((len(points), count), np.int64)
    for exponent in range(1, count):
        table[:, exponent] = table[:, exponent - 1] * base % PRIME
    return table


def inverse_differences(points: Sequence[int]) -> Matrix:
    """Return, for each point x, the inverse of the product of x - y over the others y."""
    base = np.array(points, np.int64)
    products = np.ones_like(base)
    for index, point in enumerate(points):
        differences = base - point
        differences[index] = 1
        products = products * differences % PRIME
    return np.array([pow(int(value), -1, PRIME) for value in products], np.int64)


def weights_at_zero(points: Sequence[int]) -> Matrix:
    """Return Lagrange's weights: the sum of weighted values is the polynomial's at zero."""
    everyone = 1
    for point in points:
        everyone = everyone * -point % PRIME
    # For x, the product of (0 - y) / (x - y) over the others y; `everyone` has 0 - x in it.
    without = np.array([pow(-point, -1, PRIME) for point in points], np.int64)
    return everyone * without % PRIME * inverse_differences(points) % PRIME
