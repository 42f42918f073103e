"""Turning students into features and a label, the same way on every node.

The encoding follows from the published schema alone: a node needs no row of anybody to know
which column of the matrix means what, so nothing has to be agreed on or leaks through statistics.
"""

from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twopm_flower.datasets import schema
from twopm_flower.datasets.schema import CategoryColumn, NumberColumn
from twopm_flower.errors import DataError

Setup = Literal["A", "B", "C"]
Target = Literal["pass", "improvement"]

PASS_GRADE: Final = 10
GRADE_HALF_WIDTH: Final = 4.0
"""Grades are mapped to [-4, 4], for they have 21 steps where the other scales have 4 or 5.

In a narrower range the L2 penalty and the few steps of a round hold the most telling columns back.
"""
SETUPS: Final[tuple[Setup, ...]] = ("A", "B", "C")
TARGETS: Final[tuple[Target, ...]] = ("pass", "improvement")

_FINAL_GRADE = "G3"
_GRADES = frozenset({"G1", "G2"})
_HIDDEN: Final[dict[str, frozenset[str]]] = {
    "A": frozenset({_FINAL_GRADE}),
    "B": frozenset({_FINAL_GRADE, "G2"}),
    "C": frozenset({_FINAL_GRADE, "G2", "G1"}),
}

Features = NDArray[np.float32]
Labels = NDArray[np.float32]


class FeatureEncoder:
    """A fixed map from the published columns to a matrix.

    A category column of k words becomes k - 1 columns of 0 and 1, one for each word but the last
    of the published vocabulary, which is the reference ("no", "other"): the intercept stands for
    it, and the matrix keeps full rank. A number is mapped linearly from its published range to
    [-1, 1], a grade to [-4, 4] (`GRADE_HALF_WIDTH`). The intercept belongs to the model.

    The final grade G3 is never a feature. The target ``improvement`` compares it with G1, which is
    known when a prediction is made, so the set-ups hide the same grades for both targets.

    Parameters
    ----------
    setup : {"A", "B", "C"}
        Grades among the features, as in Cortez and Silva (2008): A has G1 and G2, B has G1,
        C has none.
    target : {"pass", "improvement"}
        ``pass`` is G3 >= 10, ``improvement`` is G3 > G1.

    Raises
    ------
    DataError
        Unknown set-up or target.

    Examples
    --------
    >>> encoder = FeatureEncoder("A", "pass")
    >>> encoder.n_features
    41
    >>> encoder.feature_names[:3]
    ('school=GP', 'sex=F', 'age')
    """

    def __init__(self, setup: str = "A", target: str = "pass") -> None:
        if setup not in _HIDDEN:
            raise DataError(
                f"There is no set-up {setup!r}.",
                hint="Choose A (with G1 and G2), B (with G1) or C (without grades).",
            )
        if target not in TARGETS:
            raise DataError(
                f"There is no target {target!r}.",
                hint="Choose pass (G3 >= 10) or improvement (G3 > G1).",
            )
        self.setup = setup
        self.target = target
        self._columns = tuple(c for c in schema.COLUMNS if c.name not in _HIDDEN[setup])
        names: list[str] = []
        for column in self._columns:
            if isinstance(column, CategoryColumn):
                names.extend(f"{column.name}={value}" for value in column.values[:-1])
            else:
                names.append(column.name)
        self._feature_names = tuple(names)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the matrix columns: ``paid=yes`` for a category, ``age`` for a number."""
        return self._feature_names

    @property
    def ranges(self) -> tuple[float, ...]:
        """The largest absolute value that each feature can have: 4 for a grade, else 1."""
        return tuple(GRADE_HALF_WIDTH if name in _GRADES else 1.0 for name in self._feature_names)

    @property
    def n_features(self) -> int:
        """Number of matrix columns."""
        return len(self._feature_names)

    def encode(self, frame: pd.DataFrame) -> tuple[Features, Labels]:
        """Return features and labels of labelled students.

        Parameters
        ----------
        frame : pandas.DataFrame
            Students with the columns of the schema.

        Returns
        -------
        features : numpy.ndarray
            float32, shape (rows, n_features), each value in [-4, 4].
        labels : numpy.ndarray
            float32, shape (rows,), each 0 or 1.

        Raises
        ------
        DataError
            No rows, a missing column, or a value outside the schema; column and row are named.
        """
        return self.encode_features(frame), self.encode_labels(frame)

    def encode_features(self, frame: pd.DataFrame) -> Features:
        """Return the features alone, of students whose final grade need not be known.

        Parameters and errors are those of `encode`.
        """
        _check_rows(frame)
        blocks: list[NDArray[np.float64]] = []
        for column in self._columns:
            if isinstance(column, CategoryColumn):
                blocks.append(_one_hot(column, frame))
            else:
                half_width = GRADE_HALF_WIDTH if column.name in _GRADES else 1.0
                centred = 2.0 * _numbers(column, frame) - column.low - column.high
                blocks.append((half_width * centred / (column.high - column.low))[:, None])
        return np.hstack(blocks).astype(np.float32)

    def encode_labels(self, frame: pd.DataFrame) -> Labels:
        """Return the labels alone. Parameters and errors are those of `encode`."""
        _check_rows(frame)
        final = _grades(frame, _FINAL_GRADE)
        reached = final >= PASS_GRADE if self.target == "pass" else final > _grades(frame, "G1")
        return reached.astype(np.float32)

    def describe(self) -> dict[str, object]:
        """Return all that fixes the encoding as plain values, ready for canonical JSON."""
        return {
            "schema": schema.describe(),
            "setup": self.setup,
            "target": self.target,
            "features": list(self._feature_names),
            "numbers": "published range to [-1, 1], grades to [-4, 4]",
            "categories": "one-hot without the last value",
        }


def _check_rows(frame: pd.DataFrame) -> None:
    if frame.empty:
        raise DataError(
            "There are no students to encode.", hint="Give a partition with at least one row."
        )


def _grades(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    column = schema.COLUMNS[schema.COLUMN_NAMES.index(name)]
    return _numbers(column, frame) if isinstance(column, NumberColumn) else np.empty(0)


def _cells(name: str, frame: pd.DataFrame) -> pd.Series:
    if name not in frame.columns:
        raise DataError(
            f"The students have no column {name}.",
            hint="Load them with load_students, or add the column.",
        )
    return frame[name]


def _one_hot(column: CategoryColumn, frame: pd.DataFrame) -> NDArray[np.float64]:
    cells = _cells(column.name, frame).to_numpy(dtype=object)
    vocabulary = np.array(column.values, dtype=object)
    matches = np.asarray(cells[:, None] == vocabulary[None, :], dtype=np.bool_)
    _refuse(np.count_nonzero(matches, axis=1) == 0, column, frame)
    return matches[:, :-1].astype(np.float64)


def _numbers(column: NumberColumn, frame: pd.DataFrame) -> NDArray[np.float64]:
    numeric = pd.to_numeric(_cells(column.name, frame), errors="coerce")
    cells: NDArray[np.float64] = np.asarray(numeric, dtype=np.float64)
    # Comparisons with NaN are false, so what is not a number is refused with the rest.
    allowed = (cells >= column.low) & (cells <= column.high) & (cells == np.floor(cells))
    _refuse(~allowed, column, frame)
    return cells


def _refuse(
    wrong: NDArray[np.bool_], column: CategoryColumn | NumberColumn, frame: pd.DataFrame
) -> None:
    if wrong.any():
        position = int(np.argmax(wrong))
        value = frame[column.name].iloc[position]
        raise DataError(
            f"Student in row {frame.index[position]}, column {column.name}: "
            f"{value!r} is not {column.expected}.",
            hint="Mend the row or leave it out.",
        )
