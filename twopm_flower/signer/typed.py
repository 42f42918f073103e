"""EIP-712 typed data read strictly: exact types, exact fields, values that fit, one digest.

https://eips.ethereum.org/EIPS/eip-712
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from eth_utils.address import is_checksum_address, to_checksum_address
from eth_utils.crypto import keccak

from twopm_flower.errors import RecordError
from twopm_flower.signer.calls import shown

DOMAIN_TYPE: Final = "EIP712Domain"
DOMAIN_FIELDS: Final = (
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
)
MAX_TYPES: Final = 32
MAX_DEPTH: Final = 8
# Taking a type apart costs the square of its length.
MAX_TYPE_LENGTH: Final = 200
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ARRAY = re.compile(r"(.+)\[(\d*)\]")
_INTEGER = re.compile(r"(u?)int(\d+)")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,77})")

Types = dict[str, list[dict[str, str]]]


@dataclass(frozen=True)
class TypedData:
    """A domain, types, and a message whose values have exactly those types.

    Attributes
    ----------
    domain : dict
        ``name``, ``version``, ``chainId`` and ``verifyingContract``.
    types : dict
        The message's type and those it refers to; not the domain's.
    primary_type : str
    message : dict
        Integers as int, bytes as bytes, addresses in their EIP-55 form.
    """

    domain: dict[str, Any]
    types: Types
    primary_type: str
    message: dict[str, Any]

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read typed data as ``eth_signTypedData`` takes it.

        Bytes may be bytes or hexadecimal text, integers numbers or decimal text.

        Raises
        ------
        RecordError
            Not typed data; a type is missing, unused or malformed; a field is missing,
            unknown, or its value is not of its type.
        """
        if not isinstance(value, Mapping) or set(value) != {
            "types",
            "domain",
            "primaryType",
            "message",
        }:
            raise RecordError("typed data have exactly types, domain, primaryType and message")
        types = _types(value["types"])
        stated = types.pop(DOMAIN_TYPE, list(DOMAIN_FIELDS))
        if stated != list(DOMAIN_FIELDS):
            raise RecordError(
                f"the type {DOMAIN_TYPE} is not exactly name, version, chainId, verifyingContract"
            )
        domain = _struct(
            {DOMAIN_TYPE: list(DOMAIN_FIELDS)}, DOMAIN_TYPE, value["domain"], DOMAIN_TYPE
        )
        primary = value["primaryType"]
        if not isinstance(primary, str) or primary not in types:
            raise RecordError(f"the typed data do not define their own type {str(primary)[:60]!r}")
        unused = types.keys() - _reachable(types, primary)
        if unused:
            raise RecordError(f"the typed data define {sorted(unused)[0]!r} and do not use it")
        message = _struct(types, primary, value["message"], primary)
        return cls(domain=domain, types=types, primary_type=primary, message=message)

    @property
    def type_text(self) -> str:
        """The type string that is hashed: the primary type, then those it uses, sorted."""
        others = sorted(_reachable(self.types, self.primary_type) - {self.primary_type})
        said = []
        for name in (self.primary_type, *others):
            members = ",".join(f"{member['type']} {member['name']}" for member in self.types[name])
            said.append(f"{name}({members})")
        return "".join(said)

    @property
    def digest(self) -> bytes:
        """The 32-byte digest that is signed."""
        from eth_account.messages import encode_typed_data  # noqa: PLC0415  # slow to import

        signable = encode_typed_data(
            full_message={
                "types": {DOMAIN_TYPE: list(DOMAIN_FIELDS), **self.types},
                "domain": self.domain,
                "primaryType": self.primary_type,
                "message": self.message,
            }
        )
        return keccak(b"\x19" + signable.version + signable.header + signable.body)

    def to_json(self) -> dict[str, Any]:
        """Return what `read` reads, of JSON values only; integers above 2^53 become text."""
        return {
            "types": {DOMAIN_TYPE: list(DOMAIN_FIELDS), **self.types},
            "domain": _jsonable(self.domain),
            "primaryType": self.primary_type,
            "message": _jsonable(self.message),
        }

    def explain(self) -> str:
        """Return the message in words: its type and its fields."""
        parts = ", ".join(f"{name}={_said(value)}" for name, value in self.message.items())
        return f"{self.primary_type}({parts})"


def parts_as_request(
    domain: dict[str, Any], types: Types, primary_type: str, message: dict[str, Any]
) -> dict[str, Any]:
    """Return the parts of typed data as the one value that `TypedData.read` takes."""
    return {"types": types, "domain": domain, "primaryType": primary_type, "message": message}


def _types(value: Any) -> Types:
    if not isinstance(value, Mapping) or not 0 < len(value) <= MAX_TYPES:
        raise RecordError(f"types is not an object with 1 to {MAX_TYPES} types")
    out: Types = {}
    for name, members in value.items():
        if not _NAME.fullmatch(name) or _is_atomic(name) or not isinstance(members, list):
            raise RecordError(f"{name[:60]!r} is no type")
        out[name] = []
        for member in members:
            if not isinstance(member, Mapping) or set(member) != {"name", "type"}:
                raise RecordError(f"a member of {name[:60]} is not a name and a type")
            if not all(isinstance(text, str) for text in member.values()) or not _NAME.fullmatch(
                member["name"]
            ):
                raise RecordError(f"a member of {name[:60]} has a name that is none")
            if len(member["type"]) > MAX_TYPE_LENGTH:
                raise RecordError(
                    f"a type of {len(member['type'])} characters is no type; "
                    f"at most {MAX_TYPE_LENGTH} are read"
                )
            out[name].append({"name": member["name"], "type": member["type"]})
        if len({member["name"] for member in out[name]}) != len(members):
            raise RecordError(f"a member of {name[:60]} is there twice")
    for members in out.values():
        for member in members:
            base = _base(member["type"])
            if not _is_atomic(base) and base not in out:
                raise RecordError(f"{member['type'][:60]!r} is no type that is defined")
    return out


def _base(kind: str) -> str:
    while array := _ARRAY.fullmatch(kind):
        kind = array.group(1)
    return kind


def _is_atomic(kind: str) -> bool:
    if kind in ("address", "bool", "string", "bytes"):
        return True
    if integer := _INTEGER.fullmatch(kind):
        bits = integer.group(2)
        return bits[0] != "0" and int(bits) % 8 == 0 and 8 <= int(bits) <= 256
    return kind in {f"bytes{size}" for size in range(1, 33)}


def _reachable(types: Types, start: str) -> set[str]:
    found, waiting = set[str](), [start]
    while waiting:
        name = waiting.pop()
        if name in types and name not in found:
            found.add(name)
            waiting += [_base(member["type"]) for member in types[name]]
    return found


def _struct(types: Types, name: str, value: Any, where: str, depth: int = 0) -> dict[str, Any]:
    members = {member["name"]: member["type"] for member in types[name]}
    if not isinstance(value, Mapping) or set(value) != set(members):
        there = set(value) if isinstance(value, Mapping) else set()
        odd = ", ".join(repr(field)[:40] for field in sorted(map(str, there ^ set(members)))[:3])
        raise RecordError(f"{where} lacks or does not know the fields {odd}")
    if depth > MAX_DEPTH:
        raise RecordError(f"{where[:80]} is nested too deeply")
    return {
        field: _value(types, kind, value[field], f"{where}.{field}", depth)
        for field, kind in members.items()
    }


def _value(types: Types, kind: str, value: Any, where: str, depth: int) -> Any:
    if array := _ARRAY.fullmatch(kind):
        if not isinstance(value, (list, tuple)):
            raise RecordError(f"{where} is not a list")
        if array.group(2) and len(value) != int(array.group(2)):
            raise RecordError(f"{where} has {len(value)} elements, not {array.group(2)}")
        inner = array.group(1)
        return [_value(types, inner, e, f"{where}[{n}]", depth + 1) for n, e in enumerate(value)]
    if kind in types:
        return _struct(types, kind, value, where, depth + 1)
    return _atom(kind, value, where)


def _atom(kind: str, value: Any, where: str) -> Any:
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "address" and isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        # A checksum that does not hold is a mistyped address; one in a single case has none.
        digits = value[2:]
        if digits in (digits.lower(), digits.upper()) or is_checksum_address(value):
            return str(to_checksum_address(value))
    if kind.startswith("bytes"):
        if isinstance(value, str) and re.fullmatch(r"0x(?:[0-9a-fA-F]{2})*", value):
            value = bytes.fromhex(value[2:])
        if isinstance(value, bytes) and kind in ("bytes", f"bytes{len(value)}"):
            return bytes(value)
    if (integer := _INTEGER.fullmatch(kind)) and (number := _integer(value)) is not None:
        unsigned, bits = integer.group(1) == "u", int(integer.group(2))
        low, high = (0, 1 << bits) if unsigned else (-(1 << bits - 1), 1 << bits - 1)
        if low <= number < high:
            return number
    raise RecordError(f"{where} is {str(value)[:80]!r}, which is no {kind}")


def _integer(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return int(value)
        if re.fullmatch(r"0x[0-9a-fA-F]{1,64}", value):
            return int(value, 16)
    return None


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(element) for name, element in value.items()}
    if isinstance(value, list):
        return [_jsonable(element) for element in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    return value


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return f"({', '.join(f'{name}={_said(part)}' for name, part in value.items())})"
    if isinstance(value, list) and any(isinstance(element, dict) for element in value):
        return f"[{', '.join(map(_said, value))}]"
    return shown(value)
