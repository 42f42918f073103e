"""The reference: logistic regression on all rows in one place, solved to convergence."""

from typing import Final

import numpy as np

from twopm_flower.errors import DataError
from twopm_flower.models.base import Arrays, Floats
from twopm_flower.models.checks import check_at_least, check_features, check_labels
from twopm_flower.models.logistic_regression import BIAS, DEFAULTS, WEIGHT

GRADIENT_TOLERANCE: Final = 1e-9
MAX_STEPS: Final = 100


def fit_centralised(x: Floats, y: Floats, *, l2: float = DEFAULTS.l2) -> Arrays:
    """Fit the objective of `LogisticRegression` by Newton's method in float64.

    Parameters
    ----------
    x : numpy.ndarray
        float32, shape (rows, features).
    y : numpy.ndarray
        float32, shape (rows,), each 0 or 1.
    l2 : float
        Penalty of the weights, above 0, so that a solution always exists.

    Returns
    -------
    dict of str to numpy.ndarray
        Arrays in the layout of `LogisticRegression`, float32.

    Raises
    ------
    ConfigError
        `l2` not above 0.
    DataError
        Bad features or labels, or labels all the same: then the best bias is infinite.

    Notes
    -----
    Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning" (2009), section 4.4.1.
    """
    check_features(x, x.shape[-1])
    check_labels(y, len(x))
    check_at_least("l2", l2, 0, above=True)
    if y.min() == y.max():
        raise DataError(
            f"All {len(y)} labels are {y[0]:g}; there is nothing to tell apart.",
            hint="Give rows of both labels.",
        )
    design = np.hstack([x.astype(np.float64), np.ones((len(x), 1))])
    labels = y.astype(np.float64)
    penalty = np.full(design.shape[1], l2)
    penalty[-1] = 0.0
    parameters = np.zeros(design.shape[1])
    for _ in range(MAX_STEPS):
        probability = 0.5 + 0.5 * np.tanh(0.5 * (design @ parameters))
        gradient = design.T @ (probability - labels) / len(labels) + penalty * parameters
        if np.abs(gradient).max() < GRADIENT_TOLERANCE:
            return {
                WEIGHT: parameters[None, :-1].astype(np.float32),
                BIAS: parameters[-1:].astype(np.float32),
            }
        curvature = (probability * (1.0 - probability))[:, None] * design
        hessian = design.T @ curvature / len(labels) + np.diag(penalty)
        parameters = parameters - np.linalg.solve(hessian, gradient)
    raise DataError(
        f"The regression did not converge in {MAX_STEPS} steps with l2 = {l2:g}.",
        hint="Use a larger l2.",
    )
