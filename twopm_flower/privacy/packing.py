"""Several small signed integers in one coefficient, so that adding adds all of them."""

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import HeadroomError, PrivacyError
from twopm_flower.privacy.parameters import AdditiveParameters

Integers = npt.NDArray[np.int64]


def pack(values: Integers, parameters: AdditiveParameters) -> Integers:
    """Return the coefficients that carry `values`.

    Coefficient j is ``sum_f values[f * C + j] << (f * w)``, a signed integer of fewer than
    ``plain_bits`` bits; values past the end are 0.

    Parameters
    ----------
    values : ndarray of int64, shape (d,)
        Each at most ``parameters.limit`` in magnitude.

    Returns
    -------
    ndarray of int64, shape (C,)
        With ``C = ceil(d / fields)``.

    Raises
    ------
    HeadroomError
        If a value exceeds the limit: the sum of all nodes could wrap.
    """
    limit = parameters.limit
    if values.size and (int(values.max()) > limit or int(values.min()) < -limit):
        index = int(np.argmax((values > limit) | (values < -limit)))
        raise HeadroomError(
            f"Value {index} is {int(values[index])}; {parameters.max_nodes} nodes can add up to "
            f"{limit} each without wrapping. Nothing was encrypted.",
            hint="Lower the clip, or use fewer fields per coefficient.",
        )
    columns = parameters.coefficients(values.size)
    padded = np.zeros(parameters.fields * columns, np.int64)
    padded[: values.size] = values
    fields = padded.reshape(parameters.fields, columns)
    coefficients: Integers = fields[0].copy()
    for index in range(1, parameters.fields):
        coefficients += fields[index] << (index * parameters.width)
    return coefficients


def unpack(
    coefficients: Integers, size: int, parameters: AdditiveParameters, *, contributors: int
) -> Integers:
    """Return the values of a sum of `contributors` packed vectors.

    Parameters
    ----------
    coefficients : ndarray of int64, shape (C,)
        The summed coefficients, signed.
    size : int
        d, the number of values.
    contributors : int
        How many vectors were added.

    Returns
    -------
    ndarray of int64, shape (d,)

    Raises
    ------
    PrivacyError
        If no sum of that many honest vectors looks like this: the key is a wrong one, or
        a contributor did not keep to the limit.
    """
    columns = parameters.coefficients(size)
    if coefficients.shape != (columns,):
        raise PrivacyError(f"{coefficients.shape} coefficients do not carry {size} values.")
    if not 1 <= contributors <= parameters.max_nodes:
        raise PrivacyError(
            f"A sum of {contributors} is outside the agreed 1 to {parameters.max_nodes} nodes."
        )
    half = 1 << (parameters.width - 1)
    mask = (1 << parameters.width) - 1
    fields = np.empty((parameters.fields, columns), np.int64)
    rest = coefficients.copy()
    for index in range(parameters.fields):
        fields[index] = ((rest + half) & mask) - half
        rest = (rest - fields[index]) >> parameters.width
    values = fields.ravel()
    bound = contributors * parameters.limit
    if rest.any() or values[size:].any() or int(np.abs(values).max(initial=0)) > bound:
        raise PrivacyError(
            f"The opened sum is not one of {contributors} updates within the limit of "
            f"{parameters.limit}.",
            hint="The key is not the one that it was encrypted with, or an update is dishonest.",
        )
    return values[:size].copy()
