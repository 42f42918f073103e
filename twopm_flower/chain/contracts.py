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
from eth_utils.crypto import keccak

from twopm_flower.errors import TransactionReverted
from twopm_flower.records.statements import DOMAIN_NAME, DOMAIN_VERSION, Domain

# Solidity's own error for `require` with a text, and for failed checks of the compiler
_REVERT_STRING = bytes.fromhex("08c379a0")
MOST_WORDS = 300
"""So many characters of a reason are shown, which can be as long as an answer."""


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
    immutables : tuple of (str, int, int)
        Where immutable values stand in it: name, start and length in bytes.
    """

    name: str
    abi: list[dict[str, Any]]
    bytecode: str
    runtime: bytes
    immutables: tuple[tuple[str, int, int], ...]

    def runtime_at(self, domain: Domain, node_registry: str) -> bytes:
        """Return the code that it has where it was deployed, immutable values included.

        Code with other values could take signatures that were made for another contract.

        Parameters
        ----------
        domain : Domain
            Its chain and address.
        node_registry : str
            The node registry that it is bound to, where it is bound to one.
        """
        values = {
            # OpenZeppelin's EIP712 and ShortStrings, version 5
            "_cachedDomainSeparator": domain.separator,
            "_cachedChainId": domain.chain_id.to_bytes(32),
            "_cachedThis": bytes.fromhex(domain.verifying_contract[2:]),
            "_hashedName": keccak(text=DOMAIN_NAME),
            "_hashedVersion": keccak(text=DOMAIN_VERSION),
            "_name": _short_string(DOMAIN_NAME),
            "_version": _short_string(DOMAIN_VERSION),
            "nodeRegistry": bytes.fromhex(node_registry[2:]),
        }
        code = bytearray(self.runtime)
        for name, start, length in self.immutables:
            code[start : start + length] = values[name].rjust(length, b"\0")
        return bytes(code)


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
        immutables=tuple(
            (place["name"], place["start"], place["length"]) for place in artifact["immutables"]
        ),
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
            words = decode(["string"], encoded)[0][:MOST_WORDS]
            return TransactionReverted(f"{what} was refused: {words}")
        except (DecodingError, UnicodeDecodeError):
            pass
    shown = f"0x{data[:36].hex()}" if data else "no reason given"
    return TransactionReverted(f"{what} was refused: {shown}")


def _explain_known(error: dict[str, Any], encoded: bytes, what: str) -> TransactionReverted:
    try:
        values = decode([field["type"] for field in error["inputs"]], encoded)
    except (DecodingError, UnicodeDecodeError):
        return TransactionReverted(f"{what} was refused: {error['name']}")
    arguments: dict[str, object] = {
        field["name"]: _readable(field["type"], value)
        for field, value in zip(error["inputs"], values, strict=True)
    }
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())[:MOST_WORDS]
    return TransactionReverted(
        f"{what} was refused: {error['name']}({shown})",
        error_name=error["name"],
        arguments=arguments,
    )


def _short_string(text: str) -> bytes:
    return text.encode().ljust(31, b"\0") + bytes([len(text)])


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
