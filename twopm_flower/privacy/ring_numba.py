"""Products in the ring ``Z_q[X] / (X**2048 + 1)``, compiled: the residues of `ring_numpy`.

A word of 64 bits holds 1024 q, so butterflies add and subtract without reducing. Products
with a known factor take its quotient by q in advance (Shoup; Harvey 2014) and leave out the
lowest of their partial products, so they are below 4 q. Three levels of butterflies go over
the memory at once. In the six levels whose pairs are close together a row stands as a matrix
with lines and columns exchanged: all loops run over neighbours, and become vector
instructions. Nothing branches on residues.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.privacy.compiled import compiled, inlined
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues, mul_mod
from twopm_flower.privacy.ring_numpy import inverse_roots, roots

_Q = np.uint64(MODULUS)
_4Q = np.uint64(4 * MODULUS)
_BITS = np.uint64(MODULUS.bit_length())
_LOW = np.uint64((1 << MODULUS.bit_length()) - 1)
_FOLD = np.uint64((1 << MODULUS.bit_length()) - MODULUS)
_MASK, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ABOVE = np.uint64(128 * MODULUS)
_Q_INVERSE = np.uint64(pow(MODULUS, -1, 1 << 64))
_COLUMNS = 32
_LINES = RING_DEGREE // _COLUMNS


@inlined
def _times(x: Any, factor: Any, quotient: Any) -> Any:
    """Return a product modulo q, below 4 q: of any word, and a residue with its quotient."""
    x0, x1 = x & _MASK, x >> _HALF
    q0, q1 = quotient & _MASK, quotient >> _HALF
    whole = x1 * q1 + ((x1 * q0) >> _HALF) + ((x0 * q1) >> _HALF)
    return x * factor - whole * _Q


@inlined
def _folded(x: Any) -> Any:
    """Return a word modulo q, below 2 q."""
    return (x & _LOW) + (x >> _BITS) * _FOLD


@inlined
def _reduced(x: Any) -> Any:
    """Return the residue of a word."""
    folded = _folded(x)
    return min(folded, folded - _Q)


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
                u, v = low[j], _times(high[j], factor, quotient)
                low[j] = u + v
                high[j] = u + _4Q - v
        blocks, half = 2 * blocks, half // 2
    # A level adds at most 4 q.
    for j in range(x.size):
        x[j] = _reduced(x[j])


@compiled
def _forward_rows(rows: Any, roots: Any) -> None:
    for i in range(len(rows)):
        _forward(rows[i], roots[0], roots[1])


@inlined
def _pair(a: Any, b: Any, factor: Any, quotient: Any) -> Any:
    """Return the sum of two words below 128 q, and their difference times a factor."""
    return a + b, _times(a + _ABOVE - b, factor, quotient)


@inlined
def _factors(table: Any, i: Any, step: Any) -> Any:
    """Return the factors of a first level's four pairs, a second's two and a third's one.

    They are `step` words apart.
    """
    return (
        table[i],
        table[i + step],
        table[i + 2 * step],
        table[i + 3 * step],
        table[i + 4 * step],
        table[i + 5 * step],
        table[i + 6 * step],
    )


@inlined
def _three_levels(x: Any, i: Any, step: Any, w: Any, v: Any) -> None:
    """Do three levels of butterflies on eight words that are `step` words apart.

    Parameters
    ----------
    x : ndarray of uint64
    i, step : int
    w, v : 7 words
        Factors and their quotients, see `_factors`.
    """
    b0, b1 = _pair(x[i], x[i + step], w[0], v[0])
    b2, b3 = _pair(x[i + 2 * step], x[i + 3 * step], w[1], v[1])
    b4, b5 = _pair(x[i + 4 * step], x[i + 5 * step], w[2], v[2])
    b6, b7 = _pair(x[i + 6 * step], x[i + 7 * step], w[3], v[3])
    c0, c2 = _pair(b0, b2, w[4], v[4])
    c1, c3 = _pair(b1, b3, w[4], v[4])
    c4, c6 = _pair(b4, b6, w[5], v[5])
    c5, c7 = _pair(b5, b7, w[5], v[5])
    x[i], x[i + 4 * step] = _pair(c0, c4, w[6], v[6])
    x[i + step], x[i + 5 * step] = _pair(c1, c5, w[6], v[6])
    x[i + 2 * step], x[i + 6 * step] = _pair(c2, c6, w[6], v[6])
    x[i + 3 * step], x[i + 7 * step] = _pair(c3, c7, w[6], v[6])


@compiled
def _near_levels(t: Any, factors: Any, quotients: Any) -> None:
    """Do the first six levels of a row that is turned round.

    Parameters
    ----------
    t : ndarray of uint64, shape (2048,)
        64 lines of 32 words.
    factors, quotients : ndarray of uint64, shape (9, 7 * 32)
    """
    for group in range(8):
        lines = t[8 * _COLUMNS * group : 8 * _COLUMNS * (group + 1)]
        w, v = factors[group], quotients[group]
        for i in range(_COLUMNS):
            _three_levels(lines, i, _COLUMNS, _factors(w, i, _COLUMNS), _factors(v, i, _COLUMNS))
    w, v = factors[8], quotients[8]
    for group in range(8):
        lines = t[_COLUMNS * group :]
        for i in range(_COLUMNS):
            _three_levels(
                lines, i, 8 * _COLUMNS, _factors(w, i, _COLUMNS), _factors(v, i, _COLUMNS)
            )


@compiled
def _far_levels(x: Any, factors: Any, quotients: Any) -> None:
    """Do the last five levels of a row, and reduce it.

    Parameters
    ----------
    x : ndarray of uint64, shape (2048,)
        Any words.
    factors, quotients : ndarray of uint64, shape (5, 7)
    """
    for group in range(4):
        lines = x[8 * _LINES * group : 8 * _LINES * (group + 1)]
        w, v = _factors(factors[group], 0, 1), _factors(quotients[group], 0, 1)
        for i in range(8 * _LINES):
            lines[i] = _folded(lines[i])
        for i in range(_LINES):
            _three_levels(lines, i, _LINES, w, v)
    w, v = _factors(factors[4], 0, 1), _factors(quotients[4], 0, 1)
    step = RING_DEGREE // 4
    for i in range(step):
        b0, b1 = _pair(x[i], x[i + step], w[0], v[0])
        b2, b3 = _pair(x[i + 2 * step], x[i + 3 * step], w[1], v[1])
        x[i] = _reduced(_times(b0 + b2, w[2], v[2]))
        x[i + step] = _reduced(_times(b1 + b3, w[2], v[2]))
        x[i + 2 * step] = _reduced(_times(b0 + _ABOVE - b2, w[3], v[3]))
        x[i + 3 * step] = _reduced(_times(b1 + _ABOVE - b3, w[3], v[3]))


@compiled
def _turn(x: Any, t: Any, columns: Any, lines: Any) -> None:
    """Write a matrix of `lines` by `columns` to `t` with lines and columns exchanged."""
    for i in range(lines):
        for k in range(columns):
            t[k * lines + i] = x[i * columns + k]


@compiled
def _multiply_rows(rows: Any, factor: Any, word: Any, near: Any, far: Any) -> None:
    """Multiply transformed rows by one polynomial, and transform the products back.

    Words stay below 128 q: products are below 4 q, each of six levels doubles them, and so
    on from the 2 q that they are folded to.
    """
    quotients = np.empty(factor.size, np.uint64)
    for j in range(factor.size):
        # The division leaves no remainder once that is taken off, so the inverse of the odd
        # q modulo 2**64 divides.
        rest = _reduced(_times(factor[j], word[0], word[1]))
        quotients[j] = (np.uint64(0) - rest) * _Q_INVERSE
    turned = np.empty(factor.size, np.uint64)
    for i in range(len(rows)):
        x = rows[i]
        for j in range(x.size):
            x[j] = _times(x[j], factor[j], quotients[j])
        _turn(x, turned, _LINES, _COLUMNS)
        _near_levels(turned, near[0], near[1])
        _turn(turned, x, _COLUMNS, _LINES)
        _far_levels(x, far[0], far[1])


def transform(polynomials: Residues) -> Residues:
    """Return the transforms of polynomials, as `ring_numpy.transform` does."""
    values = np.array(polynomials, order="C")
    _forward_rows(values, _ROOTS)
    return values


def products(transformed: Residues, factor: Residues) -> Residues:
    """Return products from their transforms, as `ring_numpy.products` does."""
    rows = np.require(transformed, requirements=["C", "W"])
    _multiply_rows(rows, np.ascontiguousarray(factor), _WORD, _NEAR, _FAR)
    return rows


def _with_quotients(factors: Residues) -> npt.NDArray[np.uint64]:
    """Return residues and, as a second row, ``floor(residue * 2**64 / q)``."""
    remainders = mul_mod(factors, np.uint64((1 << 64) % MODULUS))
    return np.array([factors, (np.uint64(0) - remainders) * _Q_INVERSE])


def _near_factors() -> npt.NDArray[np.uint64]:
    """Return the factors of `_near_levels` and their quotients, shape (2, 9, 7 * 32)."""
    groups = []
    for pairs in (1024, 128):
        levels = [inverse_roots()[n : 2 * n] for n in (pairs, pairs // 2, pairs // 4)]
        # By column, group, and place within the group.
        split = [level.reshape(_COLUMNS, pairs // 128, -1) for level in levels]
        groups.append(np.concatenate(split, axis=2).transpose(1, 2, 0))
    table = np.concatenate(groups)
    return _with_quotients(table.ravel()).reshape(2, 9, 7 * _COLUMNS)


def _far_factors() -> npt.NDArray[np.uint64]:
    """Return the factors of `_far_levels` and their quotients, shape (2, 5, 7).

    The last level divides by 2048 as well.
    """
    levels = [inverse_roots()[n : 2 * n].reshape(4, -1) for n in (16, 8, 4)]
    last = np.zeros((1, 7), np.uint64)
    last[0, :2] = inverse_roots()[2:4]
    last[0, 2:4] = mul_mod(inverse_roots()[:2], np.uint64(pow(RING_DEGREE, -1, MODULUS)))
    table = np.concatenate([np.concatenate(levels, axis=1), last])
    return _with_quotients(table.ravel()).reshape(2, 5, 7)


_ROOTS = _with_quotients(roots())
_NEAR, _FAR = _near_factors(), _far_factors()
_WORD = _with_quotients(np.array([(1 << 64) % MODULUS], np.uint64)).ravel()
