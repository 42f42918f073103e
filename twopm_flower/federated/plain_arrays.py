"""Flower's plain arrays, read only where their bytes are what they say they are.

``Array.numpy`` hands bytes of another party to ``numpy.load``, which follows whatever they
claim: a zip archive, four terabytes of zeros. Here the bytes have to be the ones that numpy
writes for the type and shape that stand beside them, so nothing is parsed or allocated
that was not checked.
"""

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array

from twopm_flower.errors import RecordError

NUMPY_STYPE = "numpy.ndarray"
TYPES = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
_MOST_DIMENSIONS = 32


def plain_array(name: str, array: Array) -> npt.NDArray[Any]:
    """Return one array of a model, writable.

    Parameters
    ----------
    name : str
        What the array is called, for the error.
    array : Array
        Of numbers or truth values, as ``Array(ndarray)`` makes it.

    Raises
    ------
    RecordError
        Of another kind or type, or its bytes are not those of its type and shape.
    """
    if array.stype != NUMPY_STYPE or array.dtype not in TYPES:
        raise RecordError(
            f"array {name!r} of the model is {array.dtype[:40]} in the form "
            f"{array.stype[:40]!r}, not numbers in the form {NUMPY_STYPE!r}"
        )
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    if len(shape) > _MOST_DIMENSIONS or any(length < 0 for length in shape):
        raise RecordError(f"array {name!r} of the model has the shape {str(shape)[:80]}")
    for fortran in (False, True):
        header = _header(dtype, shape, fortran=fortran)
        if array.data.startswith(header):
            if len(array.data) != len(header) + dtype.itemsize * math.prod(shape):
                break
            values = np.frombuffer(array.data, dtype, offset=len(header))
            return values.reshape(shape, order="F" if fortran else "C").copy(order="K")
    raise RecordError(
        f"array {name!r} of the model is not the {array.dtype} of shape {str(shape)[:80]} "
        f"that it says: {len(array.data)} bytes"
    )


def _header(dtype: np.dtype[Any], shape: tuple[int, ...], *, fortran: bool) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        written,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": fortran,
            "shape": shape,
        },
    )
    return written.getvalue()
