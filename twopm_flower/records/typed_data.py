"""EIP-712 hashes of the few kinds of fields that our statements have.

Written out here, and tested against eth-account, because a verifier needs nothing else of
that library and would wait for its import (https://eips.ethereum.org/EIPS/eip-712).
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from eth_utils.crypto import keccak

from twopm_flower.errors import RecordError

_DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


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
