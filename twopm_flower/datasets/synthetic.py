"""Synthetic students: made-up rows of the published schema, the same ones everywhere.

They stand in where no real file can be had, so that everything runs; they say nothing about real
students. A hidden ability drives the grades, the family and the habits, so that the set-ups with
and without earlier grades differ as they do in the real data.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twopm_flower.datasets.schema import COLUMN_NAMES, published_file
from twopm_flower.errors import DataError

SYNTHETIC_SEED: Final = 20080401

_SUBJECT_STREAM = {"mat": 0, "por": 1}
_MEAN_GRADE = {"mat": 10.9, "por": 11.9}
_GRADE_SPREAD = {"mat": 3.6, "por": 2.9}
_REPEATED_MOST = 3

Draws = NDArray[np.float64]


def synthetic_students(
    subject: str, rows: int | None = None, *, seed: int = SYNTHETIC_SEED
) -> pd.DataFrame:
    """Generate students that never existed.

    Only the raw 64-bit words of PCG64 are used, whose stream numpy guarantees, and no function of
    the platform's mathematics library: the rows are the same on every machine.

    Parameters
    ----------
    subject : {"mat", "por"}
        Decides the level of the grades and the number of rows.
    rows : int, optional
        How many students; as many as in the published file if not given.
    seed : int
        Not negative.

    Returns
    -------
    pandas.DataFrame
        As `parse_students` returns it.

    Raises
    ------
    DataError
        Unknown subject, or `rows` below 1.
    """
    n = published_file(subject).rows if rows is None else rows
    if n < 1:
        raise DataError(f"Cannot generate {n} students.", hint="Ask for one or more rows.")
    source = _Source(np.random.PCG64([seed, _SUBJECT_STREAM[subject]]), n)

    ability = source.normal()
    home = source.normal()
    age = source.steps([0.21, 0.47, 0.72, 0.93, 0.985, 0.995, 0.998], low=15)
    failures = np.minimum(
        _REPEATED_MOST, np.floor(np.maximum(0.0, -0.9 * ability + source.normal() - 0.9) * 2)
    ).astype(np.int64)
    study = source.level(0.35 * ability, [-0.65, 0.7, 1.4], low=1)
    mother = source.level(1.1 * home + 0.35 * ability, [-2.9, -1.1, 0.0, 0.95])
    father = source.level(1.1 * home + 0.25 * ability, [-2.9, -0.9, 0.25, 1.15])
    going_out = source.level(-0.25 * ability, [-1.55, -0.45, 0.45, 1.2], low=1)
    weekday_drinks = source.level(-0.2 * ability + 0.4 * (going_out - 3), [0.9, 1.8, 2.4, 2.8], 1)
    weekend_drinks = source.level(-0.2 * ability + 0.5 * (going_out - 3), [-0.3, 0.6, 1.3, 2.1], 1)

    level = _MEAN_GRADE[subject] + _GRADE_SPREAD[subject] * (
        0.72 * ability
        + 0.2 * (mother - 2.5) / 1.1
        + 0.2 * (study - 2)
        - 0.22 * failures
        - 0.12 * (going_out - 3)
    )
    first = _grade(level + 1.5 * source.normal())
    second = _grade(0.55 * first + 0.45 * level + 1.3 * source.normal())
    third = _grade(0.85 * second + 0.15 * level + 1.1 * source.normal())

    cells: dict[str, object] = {
        "school": source.choice(["GP", "MS"], [0.75]),
        "sex": source.choice(["F", "M"], [0.55]),
        "age": np.minimum(22, age + (failures > 1)),
        "address": source.choice(["U", "R"], [0.74]),
        "famsize": source.choice(["GT3", "LE3"], [0.7]),
        "Pstatus": source.choice(["T", "A"], [0.89]),
        "Medu": mother,
        "Fedu": father,
        "Mjob": source.choice(
            ["other", "services", "at_home", "teacher", "health"], [0.38, 0.62, 0.79, 0.92]
        ),
        "Fjob": source.choice(
            ["other", "services", "teacher", "at_home", "health"], [0.56, 0.84, 0.90, 0.955]
        ),
        "reason": source.choice(["course", "home", "reputation", "other"], [0.4, 0.65, 0.9]),
        "guardian": source.choice(["mother", "father", "other"], [0.7, 0.93]),
        "traveltime": source.steps([0.62, 0.93, 0.98], low=1),
        "studytime": study,
        "failures": failures,
        "schoolsup": source.yes(-1.2 - 0.3 * ability),
        "famsup": source.yes(0.3 + 0.3 * home),
        "paid": source.yes(-0.1 if subject == "mat" else -1.5),
        "activities": source.yes(0.0),
        "nursery": source.yes(0.85),
        "higher": source.yes(1.9 + 0.8 * ability),
        "internet": source.yes(0.9 + 0.3 * home),
        "romantic": source.yes(-0.4 - 0.1 * ability),
        "famrel": source.steps([0.02, 0.07, 0.24, 0.73], low=1),
        "freetime": source.steps([0.05, 0.21, 0.61, 0.9], low=1),
        "goout": going_out,
        "Dalc": weekday_drinks,
        "Walc": weekend_drinks,
        "health": source.steps([0.12, 0.24, 0.47, 0.64], low=1),
        "absences": _absences(source.normal() - 0.25 * ability),
        "G1": first,
        "G2": second,
        "G3": third,
    }
    return pd.DataFrame(cells).loc[:, list(COLUMN_NAMES)]


class _Source:
    """Columns of `n` draws, one after the other, from raw 64-bit words."""

    def __init__(self, bits: np.random.PCG64, n: int) -> None:
        self._bits = bits
        self._n = n

    def uniform(self) -> Draws:
        """Uniform on [0, 1), 53 bits."""
        words: NDArray[np.uint64] = np.asarray(self._bits.random_raw(self._n), dtype=np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self) -> Draws:
        """About standard normal: the sum of twelve uniforms less six, exact on every platform."""
        total = np.zeros(self._n)
        for _ in range(12):
            total += self.uniform()
        return total - 6.0

    def steps(self, cumulative: Sequence[float], low: int = 0) -> NDArray[np.int64]:
        """Whole numbers from `low` on, whose cumulative probabilities are given."""
        return low + np.searchsorted(cumulative, self.uniform(), side="right").astype(np.int64)

    def level(self, score: Draws, cuts: Sequence[float], low: int = 0) -> NDArray[np.int64]:
        """Noisy `score` cut into levels from `low` on."""
        return low + np.searchsorted(cuts, score + self.normal(), side="right").astype(np.int64)

    def choice(self, values: Sequence[str], cumulative: Sequence[float]) -> list[str]:
        """Words with the given cumulative probabilities."""
        return [values[index] for index in self.steps(cumulative)]

    def yes(self, score: Draws | float) -> list[str]:
        """``yes`` where `score` plus noise is above zero."""
        return ["yes" if noisy > 0 else "no" for noisy in score + self.normal()]


def _grade(points: Draws) -> NDArray[np.int64]:
    return np.clip(np.floor(points + 0.5), 0, 20).astype(np.int64)


def _absences(score: Draws) -> NDArray[np.int64]:
    # Squares give the long tail of the real column.
    positive = np.maximum(0.0, score + 1.0)
    days = np.floor(3.0 * positive * positive)
    return np.minimum(93, days).astype(np.int64)
