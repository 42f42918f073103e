"""The field types that records are made of, and the strict model they share."""

import re
from typing import Annotated, Any, Self

from eth_utils.address import is_checksum_address, to_checksum_address
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from twopm_flower.errors import RecordError
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.digest import tagged_digest

_HEX = re.compile(r"0x(?:[0-9a-f]{2})*")


def _digest(value: str) -> str:
    if len(value) != 66 or not _HEX.fullmatch(value):
        raise ValueError("not 0x and 64 lower-case hexadecimal digits")
    return value


def _signature(value: str) -> str:
    if len(value) != 132 or not _HEX.fullmatch(value):
        raise ValueError("not 0x and 130 lower-case hexadecimal digits")
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", value) or not is_checksum_address(value):
        raise ValueError("not an EIP-55 checksummed address")
    return value


def _parse_uint64(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"0x[0-9a-f]{16}", value):
            raise ValueError("not 0x and 16 lower-case hexadecimal digits")
        return int(value, 16)
    return value


def _transaction_hash(value: str) -> str:
    if len(value) not in (66, 130) or not _HEX.fullmatch(value):
        raise ValueError("not 0x and 64 or 128 lower-case hexadecimal digits")
    return value


def _hexadecimal(value: str) -> str:
    if not _HEX.fullmatch(value):
        raise ValueError("not 0x and lower-case hexadecimal digits")
    return value


Digest = Annotated[str, AfterValidator(_digest)]
Address = Annotated[str, AfterValidator(_address)]
Signature = Annotated[str, AfterValidator(_signature)]
TransactionHash = Annotated[str, AfterValidator(_transaction_hash)]
Hex = Annotated[str, AfterValidator(_hexadecimal)]
Uint32 = Annotated[int, Field(ge=0, lt=2**32)]
Uint53 = Annotated[int, Field(ge=0, lt=2**53)]
# Beyond 2^53 a JSON number is no longer exact, so 64-bit words travel as hexadecimal text.
Uint64 = Annotated[
    int,
    BeforeValidator(_parse_uint64),
    Field(ge=0, lt=2**64),
    PlainSerializer(lambda value: f"0x{value:016x}", return_type=str, when_used="json"),
]
Round = Annotated[int, Field(ge=1, lt=2**32)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
ChainFamily = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


def checksum_address(value: str) -> str:
    """Return the EIP-55 form of a hexadecimal address.

    Raises
    ------
    RecordError
        Not 20 bytes of hexadecimal.
    """
    try:
        return str(to_checksum_address(value))
    except ValueError as error:
        raise RecordError(f"{value!r} is not an Ethereum address") from error


class Record(BaseModel):
    """A frozen record with exactly one encoding: its canonical JSON.

    Unknown fields, missing fields and coerced types are errors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Check a parsed JSON value and return the record.

        Raises
        ------
        RecordError
            A field is missing, unknown or out of its range; the field is named.
        """
        return cls._read(canonical_bytes(value))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse canonical bytes; see :func:`parse_canonical`."""
        parse_canonical(data, what=cls.__name__)
        record = cls._read(data)
        if record.to_bytes() != data:
            raise RecordError(f"{cls.__name__} has another canonical form than these bytes")
        return record

    @classmethod
    def _read(cls, data: bytes) -> Self:
        # From JSON text and not from Python values: only there do lists become tuples while
        # numbers written as text, or truth values as numbers, stay errors.
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            raise RecordError(f"not a valid {cls.__name__}: {_explain(error)}") from error

    def to_json(self) -> Any:
        """Return the record as a JSON value."""
        return self.model_dump(mode="json")

    def to_bytes(self) -> bytes:
        """Return the record's canonical bytes."""
        return canonical_bytes(self.to_json())

    def tagged(self, tag: str) -> str:
        """Return the domain-separated digest of the record's canonical bytes."""
        return tagged_digest(tag, self.to_bytes())


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "record"
    given = first.get("input")
    # Part of an object says nothing, and where a field is missing it is not even the wrong one.
    got = "" if isinstance(given, dict | list | tuple) else f" (got {str(given)[:80]!r})"
    return f"{where}: {first['msg']}{got}"
