"""A linear model as the integers that encrypted features are multiplied by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy import ring_numpy
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.linear_digits import Integers, digits_of, rounded
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues
from twopm_flower.records.terms import model_digest


def is_linear(layout: Layout) -> bool:
    """Return whether a model of this layout is linear: weights (K, d), then biases (K,)."""
    shapes = [shape for _, shape in layout.arrays]
    return len(shapes) == 2 and len(shapes[0]) == 2 and shapes[1] == shapes[0][:1]


@dataclass(frozen=True, eq=False)
class LinearArrays:
    """Weights and biases of a model of a linear layout.

    Attributes
    ----------
    weight, bias : ndarray of float32, shapes (K, d) and (K,)
        Little-endian, in C order.
    digest : str
        The model's, as the chain has it.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    digest: str

    @classmethod
    def of(cls, layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the arrays of a model whose layout `is_linear`.

        Raises
        ------
        LayoutError, HeadroomError
            They are not those of the layout, or hold a value that is not finite.
        """
        # Checks names, shapes and values.
        layout.flatten(arrays)
        weight, bias = (
            np.ascontiguousarray(arrays[name], dtype="<f4") for name, _ in layout.arrays
        )
        return cls(weight, bias, model_digest(layout.digest, weight.tobytes() + bias.tobytes()))


@dataclass(frozen=True, eq=False)
class QuantisedLinear:
    """A model's weights and biases as integers.

    Attributes
    ----------
    weight : ndarray of int64, shape (K, d)
        ``round(2**b * w)``.
    bias : ndarray of int64, shape (K,)
        ``round(2**(a + b) * bias)``.
    """

    weight: Integers
    bias: Integers

    @classmethod
    def of(
        cls, weight: npt.NDArray[Any], bias: npt.NDArray[Any], parameters: LinearParameters
    ) -> Self:
        """Return the integers of a model.

        Parameters
        ----------
        weight : ndarray of float, shape (K, d)
        bias : ndarray of float, shape (K,)
        parameters : LinearParameters

        Raises
        ------
        PrivacyError
            If the model has another shape, or is larger than the parameters were derived for.
        """
        w, beta = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        shape = (parameters.classes, parameters.features)
        if w.shape != shape or beta.shape != shape[:1]:
            raise PrivacyError(
                f"Weights of shape {w.shape} and biases of shape {beta.shape} are not those of "
                f"the parameters, {shape}."
            )
        total_bits = parameters.input_bits + parameters.weight_bits
        reach = max(
            np.ldexp(np.abs(w).sum(axis=1).max(), parameters.weight_bits),
            np.ldexp(np.abs(beta).max(), total_bits),
        )
        if not reach < 2.0**62:
            raise _too_large()
        found = cls(rounded(w, parameters.weight_bits), rounded(beta, total_bits))
        rows, added = found.digit_rows(parameters)
        reached = np.abs(rows) @ np.array(parameters.limits, np.int64) + np.abs(added)
        if (
            int(np.abs(found.weight).sum(axis=1).max()) > parameters.weight_sum
            or int(np.abs(rows).sum(axis=1).max()) > parameters.digit_sum
            or int(reached.max()) > parameters.score_limit
        ):
            raise _too_large()
        return found

    def digit_rows(self, parameters: LinearParameters) -> tuple[Integers, Integers]:
        """Return digits of weights, shape (K D, d), and of biases, (K D,); a class's together."""
        digits, bits = parameters.digits, parameters.digit_bits
        rows = np.swapaxes(digits_of(self.weight, digits, bits), 1, 2)
        return (
            np.ascontiguousarray(rows.reshape(parameters.rows, parameters.features)),
            digits_of(self.bias, digits, bits).reshape(parameters.rows),
        )


@dataclass(frozen=True, eq=False)
class PreparedLinear:
    """A model as a service keeps it: all that does not depend on a request.

    Attributes
    ----------
    parameters : LinearParameters
    rows : ndarray of int64, shape (K D, d)
        Digits of the weights.
    carried_bias : ndarray of uint64, shape (K D,)
        ``2**g`` times the digits of the biases, as residues.
    reversed_polynomials : ndarray of int64, shape (P, G d)
        The polynomials that requests of the preset ``latency`` are multiplied by, the highest
        coefficient first.
    transforms : ndarray of uint64, shape (P, 2048)
        Their transforms.
    """

    parameters: LinearParameters
    rows: Integers
    carried_bias: Residues
    reversed_polynomials: Integers
    transforms: Residues

    @classmethod
    def of(cls, quantised: QuantisedLinear, parameters: LinearParameters) -> Self:
        """Return the model, prepared."""
        rows, bias = quantised.digit_rows(parameters)
        group, features = parameters.group, parameters.features
        padded = np.zeros((parameters.polynomials * group, features), np.int64)
        padded[: len(rows)] = rows
        # Score k of a group is coefficient offset + d - 1 + k d of the product. Feature i is at
        # offset + i, so its weight is coefficient k d + d - 1 - i.
        polynomials = padded[:, ::-1].reshape(parameters.polynomials, group * features)
        coefficients = np.zeros((parameters.polynomials, RING_DEGREE), np.uint64)
        coefficients[:, : group * features] = np.mod(polynomials, MODULUS).astype(np.uint64)
        carried = np.mod(bias * np.int64(1 << parameters.guard_bits), MODULUS).astype(np.uint64)
        return cls(
            parameters,
            rows,
            carried,
            np.ascontiguousarray(polynomials[:, ::-1]),
            ring_numpy.transform(coefficients),
        )


def _too_large() -> PrivacyError:
    return PrivacyError(
        "The model is larger than the parameters were derived for: scores could wrap around.",
        hint="Derive the parameters from this very model.",
    )
