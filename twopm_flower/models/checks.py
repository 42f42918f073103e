"""Checks of what is handed to a model: arrays of its layout, rows, hyperparameters."""

import math
from collections.abc import Mapping

import numpy as np

from twopm_flower.errors import ConfigError, DataError
from twopm_flower.models.base import Floats, Layout


def check_arrays(arrays: Mapping[str, Floats], layout: Layout) -> None:
    """Raise DataError unless `arrays` are finite float32 arrays of the names and shapes."""
    expected = [spec.name for spec in layout]
    if sorted(arrays) != sorted(expected):
        raise DataError(
            f"The model has the arrays {sorted(arrays)}, not {sorted(expected)}.",
            hint="Use a model that was made for this task.",
        )
    for spec in layout:
        array = arrays[spec.name]
        if array.shape != spec.shape or array.dtype != np.float32:
            raise DataError(
                f"The model's array {spec.name} is {array.dtype} of shape {array.shape}, "
                f"not float32 of shape {spec.shape}.",
                hint="Check that set-up and model belong to the same task.",
            )
        if not np.isfinite(array).all():
            raise DataError(
                f"The model's array {spec.name} holds NaN or infinity.",
                hint="Lower the learning rate, or go back to an earlier model.",
            )


def check_features(x: Floats, n_features: int) -> None:
    """Raise DataError unless `x` has rows of `n_features` finite features."""
    if x.ndim != 2 or x.shape[1] != n_features:
        raise DataError(
            f"The features have shape {x.shape}, not (rows, {n_features}).",
            hint="Encode them with the set-up of the task.",
        )
    if not len(x):
        raise DataError("There are no rows.", hint="Give at least one row.")
    wrong = ~np.isfinite(x)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"Row {row}, feature {column} is {x[row, column]}.", hint="Mend or leave out the row."
        )


def check_labels(y: Floats, rows: int) -> None:
    """Raise DataError unless `y` holds one 0 or 1 for each row."""
    if y.shape != (rows,):
        raise DataError(
            f"The labels have shape {y.shape}, not ({rows},).", hint="Give one label for each row."
        )
    wrong = ~np.isin(y, (0.0, 1.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"Row {row} has the label {y[row]}.", hint="Labels are 0 or 1.")


def check_at_least(name: str, value: float, low: float, *, above: bool = False) -> None:
    """Raise ConfigError unless the hyperparameter is finite and at least (or above) `low`."""
    if not math.isfinite(value) or value < low or (above and value == low):
        bound = "above" if above else "at least"
        raise ConfigError(
            f"The hyperparameter {name} is {value}.", hint=f"Give a number {bound} {low:g}."
        )
