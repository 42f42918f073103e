"""What a service computes on encrypted features, compiled: the residues of `linear_numpy`."""

from typing import Any

import numpy as np

from twopm_flower.privacy.compiled import compiled
from twopm_flower.privacy.linear_digits import Integers
from twopm_flower.privacy.residues import MODULUS, Residues
from twopm_flower.privacy.ring_numba import products, transform

__all__ = ["products", "transform", "weighted_sums"]

_Q = np.int64(MODULUS)
_HALF_BITS, _LOW = np.uint64(27), np.uint64((1 << 27) - 1)
_CHUNK = 2048


@compiled
def _weighted_sums(weights: Any, residues: Any, sums: Any) -> None:
    low, high = np.empty(_CHUNK, np.int64), np.empty(_CHUNK, np.int64)
    for start in range(0, residues.shape[1], _CHUNK):
        count = min(_CHUNK, residues.shape[1] - start)
        for row in range(len(weights)):
            low[:count] = 0
            high[:count] = 0
            for term in range(weights.shape[1]):
                weight, line = weights[row, term], residues[term, start : start + count]
                for j in range(count):
                    low[j] += weight * np.int64(line[j] & _LOW)
                    high[j] += weight * np.int64(line[j] >> _HALF_BITS)
            out = sums[row, start : start + count]
            for j in range(count):
                # A residue times 2**27 has 81 bits; 9 bits more at a time fit 63.
                rest = high[j] % _Q
                for _ in range(3):
                    rest = (rest << np.int64(9)) % _Q
                out[j] = np.uint64((rest + low[j] % _Q) % _Q)


def weighted_sums(weights: Integers, residues: Residues) -> Residues:
    """Return ``weights @ residues`` modulo q, as `linear_numpy.weighted_sums` does."""
    sums = np.empty((len(weights), residues.shape[1]), np.uint64)
    _weighted_sums(weights, residues, sums)
    return sums
