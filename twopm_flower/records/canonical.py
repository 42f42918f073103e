"""Canonical JSON (RFC 8785): one value, one sequence of bytes."""

from typing import Any

import pydantic_core
import rfc8785

from twopm_flower.errors import RecordError

MAX_RECORD_BYTES = 256 * 1024 * 1024


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 encoding of a JSON value.

    Raises
    ------
    RecordError
        The value has no canonical encoding, such as NaN, an integer beyond 2^53 or a lone
        surrogate.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise RecordError(f"value has no canonical JSON form: {error}") from error


def parse_canonical(data: bytes, *, what: str = "record") -> Any:
    """Parse bytes that must be exactly the canonical encoding of their value.

    Accepting one encoding only means that a changed byte is always a changed value or an
    error: white space, key order, escapes and number spellings leave no room.

    Parameters
    ----------
    data : bytes
        The encoded value.
    what : str
        The name of the record, for the error.

    Raises
    ------
    RecordError
        Not JSON, or not in canonical form.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(f"{what} is {len(data)} bytes long, more than {MAX_RECORD_BYTES}")
    # Not json.loads: libraries that we import raise the interpreter's recursion limit so far
    # that deeply nested input would overflow the stack. This parser has a limit of its own.
    try:
        value = pydantic_core.from_json(data, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise RecordError(f"{what} is not JSON: {error}") from error
    if canonical_bytes(value) != data:
        raise RecordError(f"{what} is JSON, but not in its canonical form (RFC 8785)")
    return value
