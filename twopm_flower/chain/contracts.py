"""Our compiled contracts: their interface, their code, and what their errors mean."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import function_abi_to_4byte_selector
from eth_utils.address import to_checksum_address

from twopm_flower.errors import TransactionReverted

# Solidity's own error for `require` with a text, and for failed checks of the compiler
_REVERT_STRING = bytes.fromhex("08c379a0")


@dataclass(frozen=True)
class Contract:
    """A compiled contract.

    Attributes
    ----------
    name : str
        Its name in the sources.
    abi : list of dict
        Its interface.
    bytecode : str
        Hexadecimal code that deploys it, without constructor arguments.
    runtime : bytes
        Its code once deployed, with zeros in place of immutable values.
    immutables : tuple of (int, int)
        Where immutable values stand in it: start and length in bytes.
    """

    name: str
    abi: list[dict[str, Any]]
    bytecode: str
    runtime: bytes
    immutables: tuple[tuple[int, int], ...]

    def is_deployed_as(self, code: bytes) -> bool:
        """Tell whether deployed code is this contract, whatever its immutable values."""
        masked = bytearray(code)
        for start, length in self.immutables:
            masked[start : start + length] = bytes(length)
        return bytes(masked) == self.runtime


CONTRACTS = ("NodeRegistry", "TaskRegistry", "DataRegistry", "ReceiptRegistry")
"""All contracts that come with the package."""


@cache
def load_contract(name: str) -> Contract:
    """Load one of :data:`CONTRACTS`."""
    source = files("twopm_flower.chain") / "artifacts" / f"{name}.json"
    artifact = json.loads(source.read_text(encoding="utf-8"))
    return Contract(
        name=artifact["contract"],
        abi=artifact["abi"],
        bytecode=artifact["bytecode"],
        runtime=bytes.fromhex(artifact["deployedBytecode"][2:]),
        immutables=tuple((place["start"], place["length"]) for place in artifact["immutables"]),
    )


def explain_revert(data: bytes, what: str) -> TransactionReverted:
    """Return the error that says why a contract reverted.

    Parameters
    ----------
    data : bytes
        The revert data: a 4-byte selector and ABI-encoded arguments, or nothing.
    what : str
        What was tried: ``"recordRound"``.
    """
    selector, encoded = data[:4], data[4:]
    for error in _known_errors():
        if function_abi_to_4byte_selector(error) == selector:  # type: ignore[arg-type]  # a dict
            return _explain_known(error, encoded, what)
    if selector == _REVERT_STRING:
        try:
            return TransactionReverted(f"{what} was refused: {decode(['string'], encoded)[0]}")
        except DecodingError:
            pass
    shown = f"0x{data[:36].hex()}" if data else "no reason given"
    return TransactionReverted(f"{what} was refused: {shown}")


def _explain_known(error: dict[str, Any], encoded: bytes, what: str) -> TransactionReverted:
    try:
        values = decode([field["type"] for field in error["inputs"]], encoded)
    except DecodingError:
        return TransactionReverted(f"{what} was refused: {error['name']}")
    arguments: dict[str, object] = {
        field["name"]: _readable(field["type"], value)
        for field, value in zip(error["inputs"], values, strict=True)
    }
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return TransactionReverted(
        f"{what} was refused: {error['name']}({shown})",
        error_name=error["name"],
        arguments=arguments,
    )


@cache
def _known_errors() -> tuple[dict[str, Any], ...]:
    return tuple(
        entry for name in CONTRACTS for entry in load_contract(name).abi if entry["type"] == "error"
    )


def _readable(kind: str, value: Any) -> object:
    if kind == "address":
        return str(to_checksum_address(value))
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value
