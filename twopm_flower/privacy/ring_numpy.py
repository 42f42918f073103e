"""Products in the ring ``Z_q[X] / (X**2048 + 1)`` in numpy alone: the reference.

The number-theoretic transform is the negacyclic one of Harvey ("Faster arithmetic for
number-theoretic transforms", 2014) and Longa and Naehrig (2016, algorithms 1 and 2), with
the root that SEAL takes: entry i of a transformed polynomial is its value at
``ROOT ** (2 * reverse(i) + 1)``, where `reverse` turns round the 11 bits of i.
"""

from functools import cache

import numpy as np

from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues, add_mod, mul_mod

ROOT = 2604308523238
"""The least of the primitive 4096th roots of unity modulo q."""

_Q = np.uint64(MODULUS)


@cache
def roots() -> Residues:
    """Return the powers of `ROOT`: the i-th has the exponent i with its 11 bits turned round."""
    return _reversed_powers(ROOT)


@cache
def inverse_roots() -> Residues:
    """Return the inverses of `roots`."""
    return _reversed_powers(pow(ROOT, -1, MODULUS))


def transform(polynomials: Residues) -> Residues:
    """Return the transforms of polynomials.

    Parameters
    ----------
    polynomials : ndarray of uint64, shape (rows, 2048)
        Residues.

    Returns
    -------
    ndarray of uint64, shape (rows, 2048)
        In the order that the module describes.
    """
    values = polynomials.copy()
    blocks, half = 1, RING_DEGREE // 2
    while half:
        pairs = values.reshape(len(values), blocks, 2, half)
        factors = roots()[blocks : 2 * blocks, None]
        low = pairs[:, :, 0].copy()
        high = mul_mod(pairs[:, :, 1], factors)
        pairs[:, :, 0] = add_mod(low, high)
        pairs[:, :, 1] = add_mod(low, _Q - high)
        blocks, half = 2 * blocks, half // 2
    return values


def inverse_transform(values: Residues) -> Residues:
    """Return the polynomials that `transform` gives `values` of.

    Parameters
    ----------
    values : ndarray of uint64, shape (rows, 2048)
        Residues.

    Returns
    -------
    ndarray of uint64, shape (rows, 2048)
    """
    polynomials = values.copy()
    blocks, half = RING_DEGREE // 2, 1
    while blocks:
        pairs = polynomials.reshape(len(values), blocks, 2, half)
        factors = inverse_roots()[blocks : 2 * blocks, None]
        low, high = pairs[:, :, 0].copy(), pairs[:, :, 1].copy()
        pairs[:, :, 0] = add_mod(low, high)
        pairs[:, :, 1] = mul_mod(add_mod(low, _Q - high), factors)
        blocks, half = blocks // 2, 2 * half
    return mul_mod(polynomials, np.uint64(pow(RING_DEGREE, -1, MODULUS)))


def products(transformed: Residues, factor: Residues) -> Residues:
    """Return the products of polynomials that are given by their transforms.

    Parameters
    ----------
    transformed : ndarray of uint64, shape (rows, 2048)
        May be overwritten.
    factor : ndarray of uint64, shape (2048,)
        The transform of the polynomial that all of them are multiplied by.

    Returns
    -------
    ndarray of uint64, shape (rows, 2048)
        The polynomials' coefficients, no transforms.
    """
    return inverse_transform(mul_mod(transformed, factor))


def _reversed_powers(root: int) -> Residues:
    powers = np.empty(RING_DEGREE, np.uint64)
    bits = RING_DEGREE.bit_length() - 1
    power = 1
    for exponent in range(RING_DEGREE):
        powers[int(f"{exponent:0{bits}b}"[::-1], 2)] = power
        power = power * root % MODULUS
    powers.setflags(write=False)
    return powers
