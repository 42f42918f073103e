"""Products in the ring ``Z_q[X] / (X**2048 + 1)``, compiled: the residues of `ring_numpy`.

Butterflies are Harvey's (2014): values stay below 4 q between them, and products with a
known factor take its quotient by q in advance (Shoup). Nothing branches on residues.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.privacy.compiled import compiled
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues, mul_mod
from twopm_flower.privacy.ring_numpy import inverse_roots, roots

_Q = np.uint64(MODULUS)
_2Q = np.uint64(2 * MODULUS)
_WORD = np.uint64((1 << 64) % MODULUS)
_Q_INVERSE = np.uint64(pow(MODULUS, -1, 1 << 64))


@compiled
def _high(a: Any, b: Any) -> Any:
    """Return the upper 64 bits of a product of two 64-bit words."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    m1 = a1 * b0 + ((a0 * b0) >> half)
    m2 = a0 * b1 + (m1 & mask)
    return a1 * b1 + (m1 >> half) + (m2 >> half)


@compiled
def _forward(x: Any, factors: Any, quotients: Any) -> None:
    """Replace a polynomial by its transform."""
    blocks, half = 1, x.size // 2
    while half:
        pairs = x.reshape(blocks, 2, half)
        for i in range(blocks):
            factor, quotient = factors[blocks + i], quotients[blocks + i]
            low, high = pairs[i, 0], pairs[i, 1]
            for j in range(half):
                u = min(low[j], low[j] - _2Q)
                v = high[j] * factor - _high(high[j], quotient) * _Q
                low[j] = u + v
                high[j] = u + _2Q - v
        blocks, half = 2 * blocks, half // 2
    for j in range(x.size):
        u = min(x[j], x[j] - _2Q)
        x[j] = min(u, u - _Q)


@compiled
def _forward_rows(rows: Any, roots: Any) -> None:
    for i in range(len(rows)):
        _forward(rows[i], roots[0], roots[1])


@compiled
def _multiply(x: Any, factors: Any, quotients: Any) -> None:
    """Multiply words of 64 bits by residues; what comes out is below 2 q."""
    for j in range(x.size):
        x[j] = x[j] * factors[j] - _high(x[j], quotients[j]) * _Q


@compiled
def _backward(x: Any, factors: Any, quotients: Any) -> None:
    """Replace a transform, whose values are below 2 q, by 2048 times its polynomial."""
    blocks, half = x.size // 2, 1
    while blocks:
        pairs = x.reshape(blocks, 2, half)
        for i in range(blocks):
            factor, quotient = factors[blocks + i], quotients[blocks + i]
            low, high = pairs[i, 0], pairs[i, 1]
            for j in range(half):
                total, rest = low[j] + high[j], low[j] + _2Q - high[j]
                low[j] = min(total, total - _2Q)
                high[j] = rest * factor - _high(rest, quotient) * _Q
        blocks, half = blocks // 2, 2 * half


@compiled
def _multiply_rows(rows: Any, factor: Any, inverses: Any, scale: Any) -> None:
    """Multiply transformed rows by one polynomial, and transform the products back."""
    for i in range(len(rows)):
        x = rows[i]
        _multiply(x, factor[0], factor[1])
        _backward(x, inverses[0], inverses[1])
        for j in range(x.size):
            u = x[j] * scale[0] - _high(x[j], scale[1]) * _Q
            x[j] = min(u, u - _Q)


def transform(polynomials: Residues) -> Residues:
    """Return the transforms of polynomials, as `ring_numpy.transform` does."""
    values = np.array(polynomials, order="C")
    _forward_rows(values, _ROOTS)
    return values


def products(transformed: Residues, factor: Residues) -> Residues:
    """Return products from their transforms, as `ring_numpy.products` does."""
    rows = np.require(transformed, requirements=["C", "W"])
    _multiply_rows(rows, _with_quotients(factor), _INVERSES, _SCALE)
    return rows


def _with_quotients(factors: Residues) -> npt.NDArray[np.uint64]:
    """Return residues and, as a second row, ``floor(residue * 2**64 / q)``."""
    # The division leaves no remainder once that is taken off, so the inverse of the odd q
    # modulo 2**64 divides.
    remainders = mul_mod(factors, _WORD)
    return np.array([factors, (np.uint64(0) - remainders) * _Q_INVERSE])


_ROOTS = _with_quotients(roots())
_INVERSES = _with_quotients(inverse_roots())
_SCALE = _with_quotients(np.array([pow(RING_DEGREE, -1, MODULUS)], np.uint64)).ravel()
