"""What a service computes on encrypted features, in numpy alone: the reference."""

import numpy as np

from twopm_flower.privacy.linear_digits import Integers
from twopm_flower.privacy.residues import MODULUS, Residues, add_mod, mul_mod
from twopm_flower.privacy.ring_numpy import products, transform

__all__ = ["products", "transform", "weighted_sums"]

_HALF_BITS = np.uint64(27)
_LOW = np.uint64((1 << 27) - 1)
_HALF = np.uint64(1 << 27)
_SIGNED_Q = np.int64(MODULUS)


def weighted_sums(weights: Integers, residues: Residues) -> Residues:
    """Return ``weights @ residues`` modulo q.

    Residues are cut into halves of 27 bits, so sums are exact in 64 bits as long as the
    magnitudes of a row of weights add up to at most ``2**35``.

    Parameters
    ----------
    weights : ndarray of int64, shape (rows, terms)
    residues : ndarray of uint64, shape (terms, m)

    Returns
    -------
    ndarray of uint64, shape (rows, m)
    """
    low = weights @ (residues & _LOW).view(np.int64)
    high = weights @ (residues >> _HALF_BITS).view(np.int64)
    return add_mod(
        mul_mod(np.mod(high, _SIGNED_Q).view(np.uint64), _HALF),
        np.mod(low, _SIGNED_Q).view(np.uint64),
    )
