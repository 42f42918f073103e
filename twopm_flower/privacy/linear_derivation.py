"""Which parameters encrypted predictions by a model have: the search that `derive` stands for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError
from twopm_flower.privacy.linear_digits import Floats, digits_of, rounded, rounded_up
from twopm_flower.privacy.linear_parameters import (
    HALF_Q,
    LINEAR_NOISE,
    MASK_NOISE,
    MOST_CLASSES,
    MOST_DIGITS,
    MOST_FEATURES,
    MOST_INPUT_BITS,
    MOST_PROBABILITY_ERROR,
    MOST_WEIGHT_BITS,
    LinearParameters,
    WeightsPolicy,
)
from twopm_flower.privacy.parameters import RING_DEGREE

_MOST_SECRET_GROUP: Final = 16


def derive_linear(
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    ranges: npt.NDArray[Any],
    policy: WeightsPolicy,
) -> LinearParameters:
    """Do what `LinearParameters.derive` does."""
    w, beta = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    r = np.asarray(ranges, np.float64)
    model = _Model(policy, w, beta, r)
    _check_model(model)
    best_error = math.inf
    for digits in range(1, MOST_DIGITS + 1):
        most = (RING_DEGREE // w.shape[1] + 1) // 2
        if policy == "secret":
            most = min(most, _MOST_SECRET_GROUP)
        for group in sorted({min(most, digits * len(w)), 1}, reverse=True):
            fitting = tuple(_fitting(model, digits, group))
            if not fitting:
                continue
            best = min(fitting, key=lambda found: found.probability_error)
            best_error = min(best_error, best.probability_error)
            good = [p for p in fitting if p.probability_error <= MOST_PROBABILITY_ERROR]
            if good and policy == "secret":
                return max(good, key=lambda p: (p.flood_bits, -p.probability_error))
            if good:
                return best
    raise ConfigError(
        f"Features and weights of this model would be rounded so much that a probability may "
        f"be {best_error:.1e} off, more than {MOST_PROBABILITY_ERROR:.0e}.",
        hint="Train with more regularisation (--l2), or scale features of large range.",
    )


@dataclass(frozen=True, eq=False)
class _Model:
    policy: WeightsPolicy
    weight: Floats
    bias: Floats
    ranges: Floats


def _check_model(model: _Model) -> None:
    policy, w, beta, r = model.policy, model.weight, model.bias, model.ranges
    if policy not in get_args(WeightsPolicy):
        raise ConfigError(f"Weights are public or secret, not {policy!r}.")
    if w.ndim != 2 or beta.shape != w.shape[:1] or r.shape != w.shape[1:] or not w.size:
        raise ConfigError(
            f"Weights of shape {w.shape}, biases of shape {beta.shape} and ranges of shape "
            f"{r.shape} are not those of a linear model.",
            hint="They have the shapes (classes, features), (classes,) and (features,).",
        )
    if w.shape[1] > MOST_FEATURES or len(w) > MOST_CLASSES:
        raise ConfigError(
            f"A model of {w.shape[1]} features and {len(w)} classes does not fit: at most "
            f"{MOST_FEATURES} features go into one polynomial, and {MOST_CLASSES} classes into "
            "one answer."
        )
    if not (np.isfinite(w).all() and np.isfinite(beta).all()):
        raise ConfigError("The model has weights or biases that are not finite.")
    if not (np.isfinite(r).all() and (r > 0).all()):
        raise ConfigError("The range of a feature is not a finite number above 0.")


def _fitting(model: _Model, digits: int, group: int) -> Iterator[LinearParameters]:
    """Yield the parameters of every number of bits that fits."""
    policy, w, beta, r = model.policy, model.weight, model.bias, model.ranges
    widest = float(np.abs(w).sum(axis=1).max())
    for weight_bits in range(digits - 1, MOST_WEIGHT_BITS + 1):
        if math.ldexp(widest, weight_bits) >= float(1 << 50):
            return
        whole = rounded(w, weight_bits)
        weight_sum = rounded_up(int(np.abs(whole).sum(axis=1).max()))
        digit_bits = -(-weight_bits // digits)
        parts = np.abs(digits_of(whole, digits, digit_bits))
        digit_sum = rounded_up(int(parts.sum(axis=1).max()))
        for input_bits in range(MOST_INPUT_BITS + 1):
            bits = input_bits + weight_bits
            reach = math.ldexp(widest, bits) * float(r.max()) + math.ldexp(
                float(np.abs(beta).max()), bits
            )
            if reach >= float(1 << 60):
                break
            limits = rounded(r, input_bits)
            added = np.abs(digits_of(rounded(beta, bits), digits, digit_bits))
            # Of shape (K, D): the sums over features, by matrix product.
            reached = np.swapaxes(parts, 1, 2) @ limits + added
            score_limit = rounded_up(int(reached.max()))
            guard, flood = _bits_left(policy, group, digit_sum, score_limit)
            try:
                yield LinearParameters(
                    policy=policy,
                    features=w.shape[1],
                    classes=len(w),
                    input_bits=input_bits,
                    weight_bits=weight_bits,
                    guard_bits=guard,
                    flood_bits=flood,
                    digits=digits,
                    group=group,
                    weight_sum=weight_sum,
                    digit_sum=digit_sum,
                    score_limit=score_limit,
                    limits=tuple(limits.tolist()),
                )
            except ConfigError:
                break


def _bits_left(
    policy: WeightsPolicy, group: int, digit_sum: int, score_limit: int
) -> tuple[int, int]:
    """Return g and F; whether they suffice is for `_unusable` to say."""
    noise = LINEAR_NOISE * group * digit_sum
    if policy == "public":
        return max(1, noise.bit_length() + 1), 0
    for guard in range(52, 1, -1):
        left = (1 << (guard - 1)) - 1 - noise - MASK_NOISE
        flood = left.bit_length() if left > 0 else 0
        carried = (score_limit << guard) + noise + MASK_NOISE + (1 << flood >> 1)
        if flood and carried <= HALF_Q:
            return guard, flood
    return 1, 1
