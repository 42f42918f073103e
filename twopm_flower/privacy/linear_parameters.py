"""The parameters of encrypted linear predictions, derived from a model by formulas."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self, get_args

import numpy.typing as npt

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.privacy.frame import RESIDUE_BYTES
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

MOST_HINTED_BITS: Final = 512
"""How much the scores that share a mask may tell of its secret u, which has 3246 bits.

A requester that makes up its public key reads so many bits of u, 323 coefficients, which leaves
a problem of degree 1725 that it would have to solve by itself.
"""

MOST_FEATURES: Final = RING_DEGREE
MOST_CLASSES: Final = 2048
MOST_INPUT_BITS: Final = 20
MOST_WEIGHT_BITS: Final = 26
MOST_DIGITS: Final = 3
HALF_Q: Final = (MODULUS - 1) // 2
_MOST_DIGIT_SUM: Final = 1 << 35
_MOST_SCORE: Final = 1 << 61


@dataclass(frozen=True)
class LinearParameters:
    """How features and weights become integers, so that every score opens exactly.

    Make one with `derive`. With feature i at most r_i in magnitude::

        m_i = round(2**a * x_i)     W = round(2**b * w)     B = round(2**(a + b) * bias)

    A weight is written in D digits to the base ``2**h``, ``h = ceil(b / D)``, each with a sign;
    so is B. A digit's score is ``S = sum W_i m_i + B``, and it is answered as
    ``2**g * S + noise``. Several of them may share one polynomial (the preset ``latency``
    packs up to G of them, see `linear_frame`; of secret weights few), so with V the largest
    ``sum_i |W_i|`` of a digit's row and M the largest ``|S|``::

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
        # It makes parameters of every number of bits, so it stands above this module.
        from twopm_flower.privacy.linear_derivation import derive_linear  # noqa: PLC0415

        return derive_linear(weight, bias, ranges, policy)

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

    @property
    def block_rows(self) -> int:
        """How many rows of the preset ``batch`` share polynomials.

        2048 for public weights. For secret ones as few as `MOST_HINTED_BITS` allow: each score
        tells 54 - F bits of the mask that they share.
        """
        if self.policy == "public":
            return RING_DEGREE
        return max(1, MOST_HINTED_BITS // (RESIDUE_BITS - self.flood_bits))

    def blocks(self, rows: int) -> int:
        """Return how many blocks of `block_rows` rows a request of the preset ``batch`` has."""
        return -(-rows // self.block_rows)

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


def _unusable(p: LinearParameters) -> str | None:
    """Return what is wrong with parameters, or None."""
    if p.policy not in get_args(WeightsPolicy):
        return f"weights are public or secret, not {p.policy!r}"
    bounds = {
        "features": (1, MOST_FEATURES),
        "classes": (1, MOST_CLASSES),
        "input_bits": (0, MOST_INPUT_BITS),
        "weight_bits": (0, MOST_WEIGHT_BITS),
        "guard_bits": (1, RESIDUE_BITS - 1),
        "flood_bits": (1, RESIDUE_BITS - 2) if p.policy == "secret" else (0, 0),
        "digits": (1, MOST_DIGITS),
        "group": (1, MOST_CLASSES * MOST_DIGITS),
        "weight_sum": (0, 1 << 52),
        "digit_sum": (0, _MOST_DIGIT_SUM),
        "score_limit": (0, HALF_Q),
    }
    for name, (least, most) in bounds.items():
        if not least <= getattr(p, name) <= most:
            return f"{name} is {getattr(p, name)}, not in [{least}, {most}]"
    if len(p.limits) != p.features or p.window > RING_DEGREE or p.group > p.rows:
        return f"{p.features} features do not go {p.group} times into one polynomial"
    hinted = p.group * (RESIDUE_BITS - p.flood_bits) if p.policy == "secret" else 0
    checks = {
        "too many scores share a mask": hinted <= MOST_HINTED_BITS,
        "a residue times so large weights does not fit": p.group * p.digit_sum <= _MOST_DIGIT_SUM,
        "noise would reach the scores": 1 << (p.guard_bits - 1) > p.noise,
        "scores would wrap around": (p.score_limit << p.guard_bits) + p.noise <= HALF_Q,
        "scores would not fit 64 bits": p.score_limit << p.digit_bits * (p.digits - 1)
        < _MOST_SCORE,
        "features would not fit 54 bits": max(p.limits) << p.guard_bits <= HALF_Q,
    }
    return next((text for text, holds in checks.items() if not holds), None)
