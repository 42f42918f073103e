"""Dividing students among nodes, and each node's rows into training and held-out rows.

All shuffles order rows by SHA-256 of a label, the seed and the row number. So anybody can check
who got which row with any language, and no version of numpy changes it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twopm_flower.errors import DataError

Scheme = Literal["iid", "school"]
SCHEMES: Final[tuple[Scheme, ...]] = ("iid", "school")

DEFAULT_HOLDOUT: Final = 0.2

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers for training and row numbers held out for evaluation.

    Attributes
    ----------
    train, held_out : numpy.ndarray
        int64, ascending, without a common element.
    """

    train: Indices
    held_out: Indices


def partition(
    frame: pd.DataFrame, n: int, scheme: str = "iid", *, seed: int = 0
) -> tuple[Indices, ...]:
    """Divide the rows of `frame` among `n` nodes.

    Parameters
    ----------
    frame : pandas.DataFrame
        Students; only the number of rows and the column ``school`` matter.
    n : int
        How many nodes.
    scheme : {"iid", "school"}
        ``iid`` shuffles all rows and deals them out one by one, so sizes differ by at most one.
        ``school`` gives every node students of one school only: each further node goes to the
        school with the most students per node, and a school of several nodes is dealt out as in
        ``iid``. With two schools and two nodes each node is a school; with one node per scheme
        there would be no mixing at all, so `n` must be at least the number of schools.
    seed : int
        Chooses the shuffle; the same seed gives the same parts on every machine.

    Returns
    -------
    tuple[numpy.ndarray, ...]
        For each node its row numbers (positions, not index labels): int64, ascending. Together
        they are all rows, each once.

    Raises
    ------
    DataError
        Unknown scheme, `n` too small, or a part that would be empty.
    """
    if scheme not in SCHEMES:
        raise DataError(f"There is no partition scheme {scheme!r}.", hint="Choose iid or school.")
    if n < 1:
        raise DataError(f"Cannot divide students among {n} nodes.", hint="Use 1 or more nodes.")
    rows = np.arange(len(frame), dtype=np.int64)
    groups = [rows] if scheme == "iid" else _schools(frame, n)
    shares = _nodes_per_group([len(group) for group in groups], n)
    parts: list[Indices] = []
    for group, share in zip(groups, shares, strict=True):
        shuffled = _shuffle(group, "partition", seed)
        parts.extend(np.sort(shuffled[node::share]) for node in range(share))
    for node, part in enumerate(parts):
        if not len(part):
            raise DataError(
                f"Node {node} of {n} would get no rows of {len(frame)} (scheme {scheme}).",
                hint="Use fewer nodes or more data.",
            )
    return tuple(parts)


def split_holdout(rows: Indices, fraction: float = DEFAULT_HOLDOUT, *, seed: int = 0) -> Split:
    """Hold out a share of one node's rows for evaluation.

    Parameters
    ----------
    rows : numpy.ndarray
        The node's row numbers, int64.
    fraction : float
        Share that is held out, strictly between 0 and 1; at least one row is, and one is not.
    seed : int
        Chooses the rows.

    Returns
    -------
    Split
        The two disjoint parts of `rows`.

    Raises
    ------
    DataError
        `fraction` out of range, or fewer than two rows.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(
            f"Cannot hold out a share of {fraction}.", hint="Use a share between 0 and 1."
        )
    if len(rows) < 2:
        raise DataError(
            f"Cannot split {len(rows)} rows into training and held-out rows.",
            hint="Use fewer nodes or more data.",
        )
    held = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
    shuffled = _shuffle(rows, "holdout", seed)
    return Split(train=np.sort(shuffled[held:]), held_out=np.sort(shuffled[:held]))


def pool(splits: Sequence[Split]) -> Split:
    """Join the splits of all nodes: the same split as the federation's, for a central model.

    Raises
    ------
    DataError
        No splits, or a row in two of them.
    """
    if not splits:
        raise DataError("There are no splits to join.", hint="Split each node's rows first.")
    train = np.sort(np.concatenate([split.train for split in splits]))
    held_out = np.sort(np.concatenate([split.held_out for split in splits]))
    rows, counts = np.unique(np.concatenate([train, held_out]), return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"Row {rows[counts > 1][0]} is in more than one split.",
            hint="Split the parts of one partition.",
        )
    return Split(train=train, held_out=held_out)


def _schools(frame: pd.DataFrame, n: int) -> list[Indices]:
    if "school" not in frame.columns:
        raise DataError(
            "The students have no column school.", hint="Choose the partition scheme iid."
        )
    school = frame["school"].to_numpy(dtype=object)
    groups = [np.flatnonzero(school == name).astype(np.int64) for name in sorted(set(school))]
    if n < len(groups):
        raise DataError(
            f"Cannot give {len(groups)} schools to {n} nodes without mixing them.",
            hint=f"Use {len(groups)} or more nodes, or the partition scheme iid.",
        )
    return groups


def _nodes_per_group(sizes: Sequence[int], n: int) -> list[int]:
    shares = [1] * len(sizes)
    for _ in range(n - len(sizes)):
        # Ties go to the first group, so that the result does not depend on the platform.
        fullest = max(range(len(sizes)), key=lambda group: sizes[group] / shares[group])
        shares[fullest] += 1
    return shares


def _shuffle(rows: Indices, label: str, seed: int) -> Indices:
    def rank(row: int) -> bytes:
        return hashlib.sha256(f"twopm-flower/{label}/{seed}/{row}".encode()).digest()

    return np.array(sorted((int(row) for row in rows), key=rank), dtype=np.int64)
