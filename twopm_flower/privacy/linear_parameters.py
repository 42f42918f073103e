"""The parameters of encrypted linear predictions, derived from a model by formulas."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.privacy.linear_digits import Floats, digits_of, rounded, rounded_up
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, RESIDUE_BITS
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest

WeightsPolicy = Literal["public", "secret"]
Preset = Literal["latency", "batch"]

LINEAR_NOISE: Final = 21
"""eta: errors are differences of two binomial variables of so many fair coins, SEAL's."""

MASK_NOISE: Final = LINEAR_NOISE * (2 * RING_DEGREE + 1)
"""The largest noise of an encryption of zero under an honest requester's public key."""

MOST_PROBABILITY_ERROR: Final = 1e-3
"""What rounding features and weights may change a probability by."""

RESIDUE_BYTES: Final = 7
MOST_FEATURES: Final = RING_DEGREE
MOST_CLASSES: Final = 2048
_MOST_INPUT_BITS, _MOST_WEIGHT_BITS, _MOST_DIGITS = 20, 26, 3
_MOST_DIGIT_SUM: Final = 1 << 35
_MOST_SCORE: Final = 1 << 61
_HALF_Q: Final = (MODULUS - 1) // 2


@dataclass(frozen=True)
class LinearParameters:
    """How features and weights become integers, so that every score opens exactly.

    Make one with `derive`. With feature i at most r_i in magnitude::

        m_i = round(2**a * x_i)     W = round(2**b * w)     B = round(2**(a + b) * bias)

    A weight is written in D digits to the base ``2**h``, ``h = ceil(b / D)``, each with a sign;
    so is B. A digit's score is ``S = sum W_i m_i + B``, and it is answered as
    ``2**g * S + noise``. Several of them may share one polynomial (the preset ``latency``
    packs up to G of them, see `linear_frame`), so with V the largest ``sum_i |W_i|`` of a
    digit's row and M the largest ``|S|``::

        noise = 21 * G * V                                         (weights are public)
        noise = 21 * G * V + 21 * (2 * 2048 + 1) + 2**(F - 1)      (weights are secret)
        2**(g - 1) > noise   and   2**g * M + noise <= (q - 1) / 2

    Noise is bounded, never estimated: no honest request fails to open, and what opens are
    integers. V, M and U are rounded up to three significant bits, so that parameters tell
    little about secret weights: the magnitudes of V, M and U, and no more.

    Attributes
    ----------
    policy : {"public", "secret"}
        Whether answers may tell the weights.
    features, classes : int
        d and K, the shape of the weights.
    input_bits, weight_bits, guard_bits : int
        a, b and g.
    flood_bits : int
        F: a secret answer carries a uniform number of so many bits; 0 for public weights.
    digits : int
        D.
    group : int
        G: how many digits' scores share a polynomial, ``(2 G - 1) d <= 2048``.
    weight_sum : int
        U: at least ``sum_i |W_i|`` of every class.
    digit_sum : int
        V.
    score_limit : int
        M.
    limits : tuple of int
        The largest ``|m_i|`` of each feature.
    """

    policy: WeightsPolicy
    features: int
    classes: int
    input_bits: int
    weight_bits: int
    guard_bits: int
    flood_bits: int
    digits: int
    group: int
    weight_sum: int
    digit_sum: int
    score_limit: int
    limits: tuple[int, ...]

    def __post_init__(self) -> None:
        wrong = _unusable(self)
        if wrong:
            raise ConfigError(
                f"These parameters of encrypted predictions cannot be used: {wrong}.",
                hint="LinearParameters.derive finds those of a model.",
            )

    @classmethod
    def derive(
        cls,
        weight: npt.NDArray[Any],
        bias: npt.NDArray[Any],
        ranges: npt.NDArray[Any],
        policy: WeightsPolicy,
    ) -> "LinearParameters":
        """Return the parameters for a model.

        Public weights get the digits that make the error smallest. Secret ones get the most
        flooding that `MOST_PROBABILITY_ERROR` allows: an answer tells no more than it must.

        Parameters
        ----------
        weight : ndarray of float, shape (K, d)
        bias : ndarray of float, shape (K,)
        ranges : ndarray of float, shape (d,)
            r_i, the largest magnitude of each feature.
        policy : {"public", "secret"}

        Raises
        ------
        ConfigError
            If the model has no such shape or holds values that are not finite, there are
            more than 2048 features or classes, or the error would be too large.
        """
        w, beta = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        r = np.asarray(ranges, np.float64)
        model = _Model(policy, w, beta, r)
        _check_model(model)
        best_error = math.inf
        for digits in range(1, _MOST_DIGITS + 1):
            most = (RING_DEGREE // w.shape[1] + 1) // 2
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

    @property
    def rows(self) -> int:
        """K D: how many scores of digits an answer holds for each row of features."""
        return self.classes * self.digits

    @property
    def digit_bits(self) -> int:
        """h: bits of a digit."""
        return -(-self.weight_bits // self.digits)

    @property
    def polynomials(self) -> int:
        """How many polynomials an answer of the preset ``latency`` has."""
        return -(-self.rows // self.group)

    @property
    def offset(self) -> int:
        """The first coefficient of a request of the preset ``latency`` that carries a feature."""
        return (self.group - 1) * self.features

    @property
    def window(self) -> int:
        """How many coefficients a request of the preset ``latency`` has."""
        return (2 * self.group - 1) * self.features

    @property
    def noise(self) -> int:
        """The largest noise of an honest answer."""
        mask = MASK_NOISE + (1 << (self.flood_bits - 1)) if self.policy == "secret" else 0
        return LINEAR_NOISE * self.group * self.digit_sum + mask

    @property
    def logit_error(self) -> float:
        """The most that rounding changes a logit by.

        ``|w x - W m / 2**(a+b)| <= |w - W / 2**b| |x| + |W| / 2**b |x - m / 2**a|``, and the
        bias is off by at most ``2**-(a+b+1)``.
        """
        reach = math.fsum(self.limits) * 2.0**-self.input_bits
        inputs = self.weight_sum * 2.0**-self.weight_bits
        return float(
            (reach + self.features * 2.0 ** -(self.input_bits + 1)) * 2.0 ** -(self.weight_bits + 1)
            + inputs * 2.0 ** -(self.input_bits + 1)
            + 2.0 ** -(self.input_bits + self.weight_bits + 1)
        )

    @property
    def probability_error(self) -> float:
        """The most that rounding changes a probability by.

        The slope of the sigmoid is at most 1/4; under softmax a logit and the sum of the
        others may both be off.
        """
        return self.logit_error / (4 if self.classes == 1 else 2)

    @property
    def leaked_bits(self) -> int:
        """The most bits that one answer's scores can tell about the weights, whatever was sent.

        Each score is a residue, of less than 54 bits, with a uniform number of F bits added:
        the mutual information is at most 54 - F. For public weights 54 bits are not hidden.
        """
        return self.rows * (RESIDUE_BITS - self.flood_bits)

    @cached_property
    def identifier(self) -> str:
        """The digest that frames and statements name these parameters by."""
        return tagged_digest("linear-parameters/v1", canonical_bytes(self.to_dict()))

    def blocks(self, rows: int) -> int:
        """Return how many blocks of 2048 rows a request of the preset ``batch`` has."""
        return -(-rows // RING_DEGREE)

    def request_residues(self, preset: Preset, rows: int) -> int:
        """Return how many residues of encrypted features a request has."""
        return self.window if preset == "latency" else self.features * rows

    def response_residues(self, preset: Preset, rows: int) -> tuple[int, int]:
        """Return how many residues an answer has, and how many polynomials."""
        if preset == "latency":
            return self.rows, self.polynomials
        return self.rows * rows, self.rows * self.blocks(rows)

    def response_bytes(self, preset: Preset, rows: int) -> int:
        """Return how long a response frame is, without its header of less than 128 bytes."""
        scores, polynomials = self.response_residues(preset, rows)
        return RESIDUE_BYTES * (scores + RING_DEGREE * polynomials)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "limits": list(self.limits)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        RecordError
            If something is missing, unknown or of another type, or honest requests under such
            parameters could fail to open.
        """
        names = tuple(cls.__dataclass_fields__)
        if set(data) != set(names):
            raise RecordError(
                f"Parameters of encrypted predictions have the fields {sorted(names)}, "
                f"not {sorted(map(str, data))}."
            )
        values = dict(data)
        limits = values.pop("limits")
        if not isinstance(limits, list | tuple) or len(limits) > MOST_FEATURES:
            raise RecordError("The limits of features are no list.")
        policy = values.pop("policy")
        for name, value in [*values.items(), *(("limits", limit) for limit in limits)]:
            if type(value) is not int or not 0 <= value < 1 << 53:
                raise RecordError(f"The parameter {name} is {value!r}, not a number below 2**53.")
        try:
            return cls(policy=policy, limits=tuple(limits), **values)
        except ConfigError as error:
            raise RecordError(str(error)) from error


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
    for weight_bits in range(digits - 1, _MOST_WEIGHT_BITS + 1):
        if math.ldexp(widest, weight_bits) >= float(1 << 50):
            return
        whole = rounded(w, weight_bits)
        weight_sum = rounded_up(int(np.abs(whole).sum(axis=1).max()))
        digit_bits = -(-weight_bits // digits)
        parts = np.abs(digits_of(whole, digits, digit_bits))
        digit_sum = rounded_up(int(parts.sum(axis=1).max()))
        for input_bits in range(_MOST_INPUT_BITS + 1):
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
        if flood and carried <= _HALF_Q:
            return guard, flood
    return 1, 1


def _unusable(p: LinearParameters) -> str | None:
    """Return what is wrong with parameters, or None."""
    if p.policy not in get_args(WeightsPolicy):
        return f"weights are public or secret, not {p.policy!r}"
    bounds = {
        "features": (1, MOST_FEATURES),
        "classes": (1, MOST_CLASSES),
        "input_bits": (0, _MOST_INPUT_BITS),
        "weight_bits": (0, _MOST_WEIGHT_BITS),
        "guard_bits": (1, RESIDUE_BITS - 1),
        "flood_bits": (1, RESIDUE_BITS - 2) if p.policy == "secret" else (0, 0),
        "digits": (1, _MOST_DIGITS),
        "group": (1, MOST_CLASSES * _MOST_DIGITS),
        "weight_sum": (0, 1 << 52),
        "digit_sum": (0, _MOST_DIGIT_SUM),
        "score_limit": (0, _HALF_Q),
    }
    for name, (least, most) in bounds.items():
        if not least <= getattr(p, name) <= most:
            return f"{name} is {getattr(p, name)}, not in [{least}, {most}]"
    if len(p.limits) != p.features or p.window > RING_DEGREE or p.group > p.rows:
        return f"{p.features} features do not go {p.group} times into one polynomial"
    checks = {
        "a residue times so large weights does not fit": p.group * p.digit_sum <= _MOST_DIGIT_SUM,
        "noise would reach the scores": 1 << (p.guard_bits - 1) > p.noise,
        "scores would wrap around": (p.score_limit << p.guard_bits) + p.noise <= _HALF_Q,
        "scores would not fit 64 bits": p.score_limit << p.digit_bits * (p.digits - 1)
        < _MOST_SCORE,
        "features would not fit 54 bits": max(p.limits) << p.guard_bits <= _HALF_Q,
    }
    return next((text for text, holds in checks.items() if not holds), None)
