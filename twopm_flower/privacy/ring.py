"""Which of the two implementations multiplies polynomials: both give the same residues."""

from typing import Protocol

from twopm_flower.privacy import ring_numpy
from twopm_flower.privacy.residues import Residues

COMPILED_FROM_ROWS = 32
"""A row takes numpy 0.14 ms and numba 0.02 ms, whose import takes as long as 3000 rows in
numpy; a hundred encryptions or decryptions of fewer rows than these never make that good."""


class Ring(Protocol):
    """Products in the ring ``Z_q[X] / (X**2048 + 1)``; `ring_numpy` describes them."""

    def transform(self, polynomials: Residues, /) -> Residues:
        """Return the transforms of rows of coefficients."""

    def products(self, transformed: Residues, factor: Residues, /) -> Residues:
        """Return the coefficients of the rows times one factor, all of them transformed."""


def ring_for(rows: int) -> Ring:
    """Return the implementation that is the quicker one for so many rows."""
    if rows < COMPILED_FROM_ROWS:
        return ring_numpy
    from twopm_flower.privacy import ring_numba  # noqa: PLC0415

    return ring_numba
