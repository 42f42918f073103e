"""EIP-712 hashes of the few kinds of fields that our statements have.

Written out here, and tested against eth-account, because a verifier needs nothing else of
that library and would wait for its import (https://eips.ethereum.org/EIPS/eip-712).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from eth_utils.crypto import keccak

from twopm_flower.errors import RecordError

_KNOWN: Final = re.compile(
    r"(?:bytes|bytes32|address|bool|string|uint(?:8|16|32|64|128|256))(\[\])?"
)
_DOMAIN_FIELDS: Final = ("name", "version", "chainId", "verifyingContract")
_DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


def typed_digest(
    domain: Mapping[str, Any],
    types: Mapping[str, Sequence[Mapping[str, str]]],
    primary_type: str,
    message: Mapping[str, Any],
) -> bytes | None:
    """Return the 32-byte digest that is signed, or None for types that are not known here.

    Parameters
    ----------
    domain : mapping
        ``name``, ``version``, ``chainId`` and ``verifyingContract``.
    types : mapping
        The members of the primary type, and of no other.
    primary_type : str
    message : mapping
        A value for each member.

    Raises
    ------
    RecordError
        A value that its type cannot hold.
    KeyError
        A member without a value.
    """
    if tuple(domain) != _DOMAIN_FIELDS or tuple(types) != (primary_type,):
        return None
    members = tuple((member["name"], member["type"]) for member in types[primary_type])
    if not all(_KNOWN.fullmatch(kind) for _, kind in members):
        return None
    separator = domain_separator(*(domain[field] for field in _DOMAIN_FIELDS))
    values = [_told(kind, message[name]) for name, kind in members]
    return keccak(b"\x19\x01" + separator + struct_hash(primary_type, members, values))


def _told(kind: str, value: Any) -> Any:
    """Return a value as `struct_hash` takes it, if it is of the Python type of its kind."""
    if kind.endswith("[]"):
        if not isinstance(value, (list, tuple)):
            raise RecordError(f"{value!r} is not of the type {kind}")
        return [_told(kind[:-2], element) for element in value]
    if isinstance(value, bytes) and kind in ("bytes", "bytes32"):
        return f"0x{value.hex()}"
    wanted = {"bool": bool, "bytes32": str, "address": str, "bytes": str, "string": str}
    if type(value) is not wanted.get(kind, int):
        raise RecordError(f"{value!r} is not of the type {kind}")
    return value


@cache
def domain_separator(name: str, version: str, chain_id: int, verifying_contract: str) -> bytes:
    """Return the 32-byte hash of a domain."""
    return keccak(
        keccak(text=_DOMAIN_TYPE)
        + keccak(text=name)
        + keccak(text=version)
        + _word("uint256", chain_id)
        + _word("address", verifying_contract)
    )


@cache
def type_hash(name: str, members: tuple[tuple[str, str], ...]) -> bytes:
    """Return the 32-byte hash of a type whose members are (name, Solidity type)."""
    return keccak(text=f"{name}({','.join(f'{kind} {member}' for member, kind in members)})")


def struct_hash(name: str, members: Sequence[tuple[str, str]], values: Iterable[Any]) -> bytes:
    """Return the 32-byte hash of a value of a type.

    Parameters
    ----------
    name : str
        The type's name.
    members : sequence of (str, str)
        Name and Solidity type of each member: ``bytes32``, ``address``, ``bool``, an unsigned
        integer, ``bytes``, ``string``, or a list of one of these.
    values : iterable
        One value per member; ``bytes``, ``bytes32`` and ``address`` as hexadecimal text with
        ``0x``.

    Raises
    ------
    RecordError
        A value that its type cannot hold.
    """
    encoded = [type_hash(name, tuple(members))]
    for (_, kind), value in zip(members, values, strict=True):
        if kind.endswith("[]"):
            encoded.append(keccak(b"".join(_word(kind[:-2], element) for element in value)))
        else:
            encoded.append(_word(kind, value))
    return keccak(b"".join(encoded))


def _word(kind: str, value: Any) -> bytes:
    if kind in ("bytes32", "address"):
        data = bytes.fromhex(value[2:])
        if len(data) != (32 if kind == "bytes32" else 20):
            raise RecordError(f"{value} is not of the type {kind}")
        return data.rjust(32, b"\0")
    if kind in ("bytes", "string"):
        return keccak(bytes.fromhex(value[2:]) if kind == "bytes" else value.encode())
    number = int(value)
    bits = 1 if kind == "bool" else int(kind.removeprefix("uint"))
    if not 0 <= number < 1 << bits:
        raise RecordError(f"{value} is not of the type {kind}")
    return number.to_bytes(32, "big")
