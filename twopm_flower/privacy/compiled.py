"""Compiling a function of numbers and numpy arrays to machine code, kept for the next process."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, to be compiled at its first call and cached on disk where possible.

    It runs without the interpreter's lock and must not touch Python objects.
    """
    try:
        compiling: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache can be written to
        compiling = numba.njit(nogil=True)(function)
    return compiling


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, to become part of the compiled functions that call it.

    Only so are the loops around it compiled to vector instructions.
    """
    part: Callable[..., Any] = numba.njit(forceinline=True)(function)
    return part
