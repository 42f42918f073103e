"""Single fields of Flower's records, checked: bytes, texts, numbers, lists and blobs of ours."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from flwr.app import Array

from twopm_flower.errors import RecordError
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.fields import Record
from twopm_flower.records.statements import Signed, Statement, parse_signed

S = TypeVar("S", bound=Statement)
MOST_SIGNED = 1 << 16
"""Statements of one kind in a message: as many as a task has members at most."""


def list_of(kind: type[S], values: Any, *, at_most: int = MOST_SIGNED) -> tuple[Signed[S], ...]:
    """Return a JSON list of signed statements of one kind."""
    if not isinstance(values, list) or len(values) > at_most:
        raise RecordError(f"the {kind.__name__} list is no list of at most {at_most}")
    return tuple(parse_signed(kind, value) for value in values)


def list_bytes(records: Iterable[Record]) -> bytes:
    """Return records as one canonical JSON list."""
    return canonical_bytes([record.to_json() for record in records])


def json_list(fields: Mapping[str, Any], name: str) -> list[Any]:
    """Return a field that must be a canonical JSON list."""
    value = parse_canonical(bytes_field(fields, name), what=name)
    if not isinstance(value, list):
        raise RecordError(f"{name!r} is not a list")
    return value


def bytes_field(fields: Mapping[str, Any], name: str) -> bytes:
    """Return a field that must be bytes."""
    value = fields.get(name)
    if not isinstance(value, bytes):
        raise RecordError(f"{name!r} is missing or not bytes")
    return value


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be text."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise RecordError(f"{name!r} is missing or not text")
    return value


def integer_field(fields: Mapping[str, Any], name: str) -> int:
    """Return a field that must be a number from 1 on."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**32:
        raise RecordError(f"{name!r} is missing or not a number from 1 on")
    return value


def blob(data: bytes, stype: str) -> Array:
    """Return bytes as an array of a kind of ours; Flower chunks and de-duplicates it."""
    return Array(dtype="uint8", shape=(len(data),), stype=stype, data=data)


def blob_bytes(array: Array, stype: str) -> bytes:
    """Return the bytes of an array of a kind of ours."""
    if array.stype != stype:
        raise RecordError(f"an array is of the kind {array.stype!r}, not {stype!r}")
    return bytes(array.data)
