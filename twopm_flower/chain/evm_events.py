"""Our contracts' events as the package names them."""

import re
from typing import Any, cast

from eth_abi.abi import decode, encode
from eth_typing import ABIEvent
from hexbytes import HexBytes
from web3.contract import Contract as Web3Contract
from web3.types import LogReceipt

from twopm_flower.chain.base import ChainEvent
from twopm_flower.chain.facts import EventName
from twopm_flower.errors import WrongChain


def read_event(contract: Web3Contract, entry: LogReceipt) -> ChainEvent:
    """Decode a log entry of one of our contracts.

    Raises
    ------
    WrongChain
        It is none of the contract's events.
    """
    topic = bytes(entry["topics"][0]) if entry["topics"] else b""
    for event in contract.all_events():
        if bytes.fromhex(event.topic[2:]) == topic:
            decoded = event().process_log(_in_words(event.abi, entry))
            return ChainEvent(
                name=cast("EventName", snake_case(decoded["event"])),
                values={snake_case(name): _plain(value) for name, value in decoded["args"].items()},
                block_number=int(decoded["blockNumber"]),
                block_hash="0x" + bytes(decoded["blockHash"]).hex(),
                transaction_hash="0x" + bytes(decoded["transactionHash"]).hex(),
                index=int(decoded["logIndex"]),
            )
    raise WrongChain(f"the contract at {contract.address} has no event with topic 0x{topic.hex()}")


def _in_words(event: ABIEvent, entry: LogReceipt) -> LogReceipt:
    """Return the entry with text that is text: anybody can have a contract log any bytes."""
    kinds = [str(part["type"]) for part in event["inputs"] if not part.get("indexed")]
    if "string" not in kinds:
        return entry
    raw = decode(["bytes" if kind == "string" else kind for kind in kinds], bytes(entry["data"]))
    values = [
        value.decode(errors="replace") if kind == "string" else value
        for kind, value in zip(kinds, raw, strict=True)
    ]
    return cast("LogReceipt", {**entry, "data": HexBytes(encode(kinds, values))})


def snake_case(name: str) -> str:
    """Return a Solidity name as Python spells it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _plain(value: Any) -> str | int:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, int) else str(value)
