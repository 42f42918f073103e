"""Turning a weighted, clipped update into integers, and a sum of them into a mean.

Only IEEE 754 operations that are correctly rounded everywhere are used, one after the
other, so every node derives the same floats from the same integers.
"""

import math

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import HeadroomError

_FLOAT_SLACK = 2.0**-50


def quantise(
    update: npt.NDArray[np.float64], *, clip: float, limit: int, samples: int, max_samples: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Return ``rint(S * (samples / max_samples) * clip(update))`` with ``S = floor(limit / clip)``.

    The weight ``S * samples / max_samples`` is one correctly rounded quotient of integers,
    and it multiplies the clipped value.

    Parameters
    ----------
    update : ndarray of float64, shape (d,)
        The difference to the round's base model.
    clip : float
        Values are clipped to ``[-clip, clip]``.
    limit : int
        The largest magnitude of a result.
    samples, max_samples : int
        The node's number of training rows, and the public bound on it.

    Returns
    -------
    values : ndarray of int64, shape (d,)
    clipped : int
        How many values were beyond the clip.

    Raises
    ------
    HeadroomError
        If a value is NaN or infinite, or the settings leave no step.
    """
    scale = steps(clip=clip, limit=limit)
    _check_samples(samples, max_samples)
    if not np.isfinite(update).all():
        index = int(np.argmin(np.isfinite(update)))
        raise HeadroomError(f"Value {index} of the update is {update[index]}.")
    clipped = int(np.count_nonzero(np.abs(update) > clip))
    weighted = np.clip(update, -clip, clip)
    weighted *= scale * samples / max_samples
    return np.rint(weighted, out=weighted).astype(np.int64), clipped


def mean(
    summed: npt.NDArray[np.int64],
    *,
    clip: float,
    limit: int,
    samples_total: int,
    max_samples: int,
    out: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the weighted mean of the updates whose quantised sum is `summed`.

    This is ``max_samples * summed / (S * samples_total)``, where `samples_total` is the sum
    of the contributors' samples. It is written to `out` where that is given.

    Raises
    ------
    HeadroomError
        If the settings leave no step, or a number of samples is not positive.
    """
    scale = steps(clip=clip, limit=limit)
    if samples_total < 1 or max_samples < 1:
        raise HeadroomError(
            f"samples_total = {samples_total} and max_samples = {max_samples} must be positive."
        )
    return np.multiply(summed, max_samples / (scale * samples_total), out=out)


def error_bound(
    *, clip: float, limit: int, contributors: int, samples_total: int, max_samples: int
) -> float:
    """Return the largest difference of `mean` to the exact weighted mean of clipped updates.

    Each contributor rounds by at most half a step, and the floats add a relative error of a
    few units in the last place: ``contributors * max_samples / (2 * S * samples_total)`` and
    a slack of ``2**-50`` of the range.
    """
    scale = steps(clip=clip, limit=limit)
    step = max_samples / (scale * samples_total)
    return contributors * step * (0.5 + _FLOAT_SLACK * limit) + _FLOAT_SLACK * clip


def steps(*, clip: float, limit: int) -> int:
    """Return S, the whole number of quantisation steps per unit of the update.

    The quotient is one of float64: rounding can take it over the exact one by a unit in the
    last place, which is too little for ``rint(S * clip)`` to exceed `limit`.

    Raises
    ------
    HeadroomError
        If `clip` is not a positive number up to `limit`.
    """
    if not (math.isfinite(clip) and 0 < clip <= limit):
        raise HeadroomError(
            f"A clip of {clip} cannot be used with fields that hold {limit}.",
            hint="Choose a positive clip below it, fewer fields per coefficient, or fewer nodes.",
        )
    return math.floor(limit / clip)


def _check_samples(samples: int, max_samples: int) -> None:
    if not 0 < samples <= max_samples:
        raise HeadroomError(
            f"A node with {samples} samples does not fit the bound of 1 to {max_samples}.",
            hint="The bound is max_samples of the task's terms.",
        )
