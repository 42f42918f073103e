"""Ciphertexts as vectors of residues: what is added, digested and fingerprinted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import HeadroomError, PrivacyError
from twopm_flower.privacy.binding import FrameContext
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import (
    Residues,
    add_into,
    as_residues,
    residue_bytes,
    sum_mod,
)
from twopm_flower.records.digest import tagged_digest

SEED_BYTES = 64


@dataclass(frozen=True, eq=False)
class SeededCiphertext:
    """A fresh ciphertext as it travels: the uniform half is still the seed it grows from.

    Attributes
    ----------
    c0 : ndarray of uint64, shape (C,)
        The used coefficients, row after row. BFV decrypts each coefficient on its own, so
        the unused ones of the last row are never sent.
    seeds : ndarray of uint8, shape (rows, 64)
        One seed per row; no rows where nothing is encrypted.
    """

    c0: Residues
    seeds: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        object.__setattr__(self, "c0", _used_coefficients(self.c0))
        if self.seeds.dtype != np.uint8 or self.seeds.shape[1:] != (SEED_BYTES,):
            raise PrivacyError(
                f"Seeds of {self.seeds.dtype} {self.seeds.shape} are not rows of {SEED_BYTES}."
            )
        _same_rows(len(self.seeds), self.c0)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SeededCiphertext)
            and np.array_equal(self.c0, other.c0)
            and np.array_equal(self.seeds, other.seeds)
        )

    def __hash__(self) -> int:
        return hash((self.c0.tobytes(), self.seeds.tobytes()))

    def with_c1(self, c1: Residues) -> "Ciphertext":
        """Return the ciphertext whose uniform half is spelt out; what is checked stays checked.

        Raises
        ------
        PrivacyError
            If `c1` has another shape, or holds no residues.
        """
        _same_rows(len(c1), self.c0)
        return _unchecked(self.c0, _uniform_half(c1))


@dataclass(frozen=True, eq=False)
class Ciphertext:
    """A ciphertext, or a sum of some, with every residue spelt out.

    Attributes
    ----------
    c0 : ndarray of uint64, shape (C,)
        The used coefficients, row after row.
    c1 : ndarray of uint64, shape (rows, 2048)
        The uniform half in full; no rows where nothing is encrypted.
    """

    c0: Residues
    c1: Residues

    def __post_init__(self) -> None:
        object.__setattr__(self, "c0", _used_coefficients(self.c0))
        object.__setattr__(self, "c1", _uniform_half(self.c1))
        _same_rows(len(self.c1), self.c0)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Ciphertext)
            and np.array_equal(self.c0, other.c0)
            and np.array_equal(self.c1, other.c1)
        )

    def __hash__(self) -> int:
        return hash((self.c0.tobytes(), self.c1.tobytes()))

    def residues(self) -> Residues:
        """Return c0, then c1 row after row, as one vector: what fingerprints are taken of."""
        return np.concatenate([self.c0, self.c1.ravel()])

    def digest(self, context: FrameContext) -> str:
        """Return the digest that a node signs for its update."""
        return self._digest("update/v1", context.update_bytes)

    def aggregate_digest(self, context: FrameContext) -> str:
        """Return the digest of a round's sum; the context's node does not enter it."""
        return self._digest("aggregate/v1", context.aggregate_bytes)

    def _digest(self, tag: str, binding: bytes) -> str:
        counts = len(self.c1).to_bytes(4, "little") + self.c0.size.to_bytes(4, "little")
        return tagged_digest(tag, binding, counts, residue_bytes(self.c0), residue_bytes(self.c1))


def add(ciphertexts: Sequence[Ciphertext], *, max_nodes: int) -> Ciphertext:
    """Return the sum of `ciphertexts`: no key takes part, and order does not matter.

    Parameters
    ----------
    ciphertexts : sequence of Ciphertext
        Of one shape, at least one.
    max_nodes : int
        ``AdditiveParameters.max_nodes``.

    Raises
    ------
    HeadroomError
        If there are more than `max_nodes`: the sum could wrap.
    PrivacyError
        If there is none, or the shapes differ.
    """
    _within(len(ciphertexts), max_nodes)
    running = RunningSum(max_nodes)
    for ciphertext in ciphertexts:
        running.add(ciphertext)
    return running.total()


class RunningSum:
    """The sum of ciphertexts that come one after the other: `add`, without holding them all.

    Parameters
    ----------
    max_nodes : int
        ``AdditiveParameters.max_nodes``.
    """

    def __init__(self, max_nodes: int) -> None:
        self._max_nodes = max_nodes
        self._count = 0
        self._total: Ciphertext | None = None

    def add(self, ciphertext: Ciphertext) -> None:
        """Add one more.

        Raises
        ------
        HeadroomError, PrivacyError
            As `add`.
        """
        _within(self._count + 1, self._max_nodes)
        if self._total is None:
            # Sums of residues modulo q are residues.
            self._total = _unchecked(sum_mod([ciphertext.c0]), sum_mod([ciphertext.c1]))
        else:
            add_into(self._total.c0, ciphertext.c0)
            add_into(self._total.c1, ciphertext.c1)
        self._count += 1

    def total(self) -> Ciphertext:
        """Return the sum so far; it goes on changing with `add`.

        Raises
        ------
        PrivacyError
            If nothing was added.
        """
        if self._total is None:
            raise PrivacyError("There is nothing to add.", hint="Pass at least one ciphertext.")
        return self._total


def _within(count: int, max_nodes: int) -> None:
    if count > max_nodes:
        raise HeadroomError(
            f"{count} ciphertexts exceed the {max_nodes} that were agreed on.",
            hint="Derive the parameters for more nodes.",
        )


def _unchecked(c0: Residues, c1: Residues) -> Ciphertext:
    made: Ciphertext = object.__new__(Ciphertext)
    object.__setattr__(made, "c0", c0)
    object.__setattr__(made, "c1", c1)
    return made


def _uniform_half(c1: Residues) -> Residues:
    if c1.ndim != 2 or c1.shape[1] != RING_DEGREE:
        raise PrivacyError(f"c1 of shape {c1.shape} is not rows of {RING_DEGREE}.")
    return as_residues(c1, "c1")


def _used_coefficients(c0: Residues) -> Residues:
    if c0.ndim != 1 or not c0.size:
        raise PrivacyError(f"c0 of shape {c0.shape} is not a vector of residues.")
    return as_residues(c0, "c0")


def _same_rows(rows: int, c0: Residues) -> None:
    needed = -(-c0.size // RING_DEGREE)
    if rows not in (0, needed):
        raise PrivacyError(f"{c0.size} coefficients take {needed} rows, not {rows}.")
