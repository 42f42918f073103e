"""Which of the two implementations multiplies polynomials: both give the same residues."""

import sys
from typing import Protocol

from twopm_flower.privacy import ring_numpy
from twopm_flower.privacy.residues import Residues

COMPILED_FROM_ROWS = 32
"""Fewer rows at a time are numpy's: a row takes it 0.14 ms, and whatever else there is to do
for an update takes longer than them."""

IMPORT_ROWS = 4000
"""Importing the compiler takes as long as so many rows in numpy, 0.6 s."""

_rows_by_numpy = 0


class Ring(Protocol):
    """Products in the ring ``Z_q[X] / (X**2048 + 1)``; `ring_numpy` describes them."""

    def transform(self, polynomials: Residues, /) -> Residues:
        """Return the transforms of rows of coefficients."""

    def products(self, transformed: Residues, factor: Residues, /) -> Residues:
        """Return the coefficients of the rows times one factor, all of them transformed."""


def ring_for(rows: int) -> Ring:
    """Return the implementation for so many more rows.

    A process that ends after one update, as Flower starts them for deployed nodes, never
    makes good what importing the compiler takes; one that stays does. So numpy multiplies
    until it has spent on large updates what the import would have taken: whatever follows,
    at most twice of the best choice is spent.
    """
    global _rows_by_numpy  # noqa: PLW0603  # of this process, as what is imported is
    if rows < COMPILED_FROM_ROWS:
        return ring_numpy
    if "twopm_flower.privacy.ring_numba" not in sys.modules:
        _rows_by_numpy += rows
        if _rows_by_numpy < IMPORT_ROWS:
            return ring_numpy
    from twopm_flower.privacy import ring_numba  # noqa: PLC0415

    return ring_numba
