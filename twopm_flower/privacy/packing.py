"""Several small signed integers in one coefficient, so that adding adds all of them.

Large models are packed and unpacked in chunks, so that what is between takes little memory.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import HeadroomError, PrivacyError
from twopm_flower.privacy.parameters import AdditiveParameters

Integers = npt.NDArray[np.int64]
Source = Callable[[int, int], Integers]
"""Returns the values from a first index up to, and without, a second one."""

_CHUNK = 1 << 15


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
    return pack_from(lambda start, stop: values[start:stop], values.size, parameters)


def pack_from(source: Source, size: int, parameters: AdditiveParameters) -> Integers:
    """Return what `pack` does, of `size` values that are asked for piece by piece.

    Each value is asked for once, a field's values in their order, the fields in turn.

    Raises
    ------
    HeadroomError
        If a value exceeds the limit.
    """
    columns = parameters.coefficients(size)
    coefficients = np.zeros(columns, np.int64)
    for start in range(0, columns, _CHUNK):
        stop = min(start + _CHUNK, columns)
        for field in range(parameters.fields):
            first = field * columns + start
            last = min(field * columns + stop, size)
            if first < last:
                values = source(first, last)
                _check_limit(values, first, parameters)
                chunk = coefficients[start : start + values.size]
                chunk += values << np.int64(field * parameters.width)
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
    values = np.empty(size, np.int64)
    for start, piece in unpack_pieces(coefficients, size, parameters, contributors=contributors):
        values[start : start + piece.size] = piece
    return values


def unpack_pieces(
    coefficients: Integers, size: int, parameters: AdditiveParameters, *, contributors: int
) -> Iterator[tuple[int, Integers]]:
    """Yield what `unpack` returns in pieces, each with the index of its first value.

    Nothing that was yielded may be used before the end: it is then that all is checked.

    Raises
    ------
    PrivacyError
        As `unpack` does.
    """
    columns = parameters.coefficients(size)
    if coefficients.shape != (columns,):
        raise PrivacyError(f"{coefficients.shape} coefficients do not carry {size} values.")
    if not 1 <= contributors <= parameters.max_nodes:
        raise PrivacyError(
            f"A sum of {contributors} is outside the agreed 1 to {parameters.max_nodes} nodes."
        )
    width = np.int64(parameters.width)
    bound = contributors * parameters.limit
    for start in range(0, columns, _CHUNK):
        rest = coefficients[start : start + _CHUNK].copy()
        for field in range(parameters.fields):
            values = np.empty(rest.size, np.int64)
            smallest, largest = _split_field(rest, width, values)
            first = field * columns + start
            used = max(0, min(values.size, size - first))
            if smallest < -bound or largest > bound or values[used:].any():
                raise _impossible(contributors, parameters)
            if used:
                yield first, values[:used]
        if rest.any():
            raise _impossible(contributors, parameters)


def _split_field(rest: Integers, width: np.int64, values: Integers) -> tuple[int, int]:
    """Take the lowest signed field off each coefficient; return the extremes of the fields."""
    above = np.int64(64) - width
    np.left_shift(rest, above, out=values)
    values >>= above
    rest -= values
    rest >>= width
    return int(values.min()), int(values.max())


def _check_limit(values: Integers, first: int, parameters: AdditiveParameters) -> None:
    limit = parameters.limit
    if int(values.max()) > limit or int(values.min()) < -limit:
        index = int(np.argmax((values > limit) | (values < -limit)))
        raise HeadroomError(
            f"Value {first + index} is {int(values[index])}; {parameters.max_nodes} nodes can "
            f"add up to {limit} each without wrapping. Nothing was encrypted.",
            hint="Lower the clip, or use fewer fields per coefficient.",
        )


def _impossible(contributors: int, parameters: AdditiveParameters) -> PrivacyError:
    return PrivacyError(
        f"The opened sum is not one of {contributors} updates within the limit of "
        f"{parameters.limit}.",
        hint="The key is not the one that it was encrypted with, or an update is dishonest.",
    )
