"""JSON-RPC for the embedded chain: Ethereum's methods over its node."""

import re
from collections.abc import Mapping
from typing import Any

from twopm_flower.chain.devnet_node import PRIORITY_FEE_WEI, Call, DevnetNode, LogFilter
from twopm_flower.chain.json_rpc import INVALID_PARAMS, SERVER_ERROR, Methods, RpcError, answer

CLIENT_VERSION = "twopm-devnet/1/py-evm-prague"
MAX_FEE_HISTORY = 1024
_NEWEST = ("latest", "pending", "safe", "finalized")


class JsonRpc:
    """Answers JSON-RPC requests from a node; an endpoint for a connector in this process.

    Parameters
    ----------
    node : DevnetNode
        The chain.
    """

    def __init__(self, node: DevnetNode) -> None:
        self._node = node
        self._methods: Methods = {
            "eth_accounts": list,
            "eth_blockNumber": lambda: hex(node.head_number()),
            "eth_call": self._call,
            "eth_chainId": lambda: hex(node.chain_id),
            "eth_estimateGas": self._estimate_gas,
            "eth_feeHistory": self._fee_history,
            "eth_gasPrice": lambda: hex(node.next_base_fee_wei() + PRIORITY_FEE_WEI),
            "eth_getBalance": lambda address, block="latest": hex(self._account(address, block)[1]),
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getCode": lambda address, block="latest": (
                "0x" + self._account(address, block)[2].hex()
            ),
            "eth_getLogs": self._logs,
            "eth_getStorageAt": self._storage,
            "eth_getTransactionByHash": lambda digest: node.transaction(_hash(digest)),
            "eth_getTransactionCount": lambda address, block="latest": hex(
                self._account(address, block)[0]
            ),
            "eth_getTransactionReceipt": lambda digest: node.receipt(_hash(digest)),
            "eth_maxPriorityFeePerGas": lambda: hex(PRIORITY_FEE_WEI),
            "eth_sendRawTransaction": lambda raw: node.send_raw_transaction(_bytes(raw)),
            "eth_syncing": lambda: False,
            "net_version": lambda: str(node.chain_id),
            "web3_clientVersion": lambda: CLIENT_VERSION,
        }

    def answer(self, request: Any) -> Any:
        """Answer a parsed request or batch of requests; never raises."""
        return answer(self._methods, request)

    def _call(self, call: Any, block: Any = "latest") -> str:
        self._require_latest(block)
        return "0x" + self._node.call(_parse_call(call)).hex()

    def _estimate_gas(self, call: Any, block: Any = "latest") -> str:
        self._require_latest(block)
        return hex(self._node.estimate_gas(_parse_call(call)))

    def _account(self, address: Any, block: Any) -> tuple[int, int, bytes]:
        self._require_latest(block)
        return self._node.account(_address(address))

    def _storage(self, address: Any, slot: Any, block: Any = "latest") -> str:
        self._require_latest(block)
        return f"0x{self._node.storage(_address(address), _quantity(slot)):064x}"

    def _block_by_number(self, number: Any, full: Any = False) -> dict[str, Any] | None:
        return self._node.block(self._block_number(number), full=full is True)

    def _block_by_hash(self, digest: Any, full: Any = False) -> dict[str, Any] | None:
        number = self._node.block_number_of(_bytes(_hash(digest)))
        return None if number is None else self._node.block(number, full=full is True)

    def _fee_history(self, count: Any, newest: Any, percentiles: Any = ()) -> dict[str, Any]:
        last = min(self._block_number(newest), self._node.head_number())
        wanted = count if isinstance(count, int) else _quantity(count)
        first = max(0, last - min(max(wanted, 1), MAX_FEE_HISTORY) + 1)
        blocks = [self._node.block(number) for number in range(first, last + 1)]
        present = [block for block in blocks if block is not None]
        after = self._node.block(last + 1)
        next_fee = hex(self._node.next_base_fee_wei()) if after is None else after["baseFeePerGas"]
        ratio = [int(block["gasUsed"], 16) / int(block["gasLimit"], 16) for block in present]
        history: dict[str, Any] = {
            "oldestBlock": hex(first),
            "baseFeePerGas": [*(block["baseFeePerGas"] for block in present), next_fee],
            "gasUsedRatio": ratio,
        }
        if percentiles:
            history["reward"] = [[hex(PRIORITY_FEE_WEI)] * len(percentiles) for _ in present]
        return history

    def _logs(self, wanted: Any) -> list[Any]:
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "a log filter is an object")
        if "blockHash" in wanted:
            number = self._node.block_number_of(_bytes(_hash(wanted["blockHash"])))
            if number is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            first = last = number
        else:
            first = self._block_number(wanted.get("fromBlock", "latest"))
            last = self._block_number(wanted.get("toBlock", "latest"))
        addresses = wanted.get("address") or []
        if isinstance(addresses, str):
            addresses = [addresses]
        topics = [
            [] if option is None else [option] if isinstance(option, str) else option
            for option in wanted.get("topics") or []
        ]
        return self._node.logs(
            LogFilter(
                first,
                last,
                ["0x" + _address(address).hex() for address in addresses],
                [[_hash(topic) for topic in options] for options in topics],
            )
        )

    def _block_number(self, tag: Any) -> int:
        if tag in _NEWEST:
            return self._node.head_number()
        return 0 if tag == "earliest" else _quantity(tag)

    def _require_latest(self, block: Any) -> None:
        # Old states are in the trie, yet nothing here asks for them; an answer from the latest
        # state under the name of an old one would be a lie.
        if block in _NEWEST:
            return  # whatever is the newest by now: a block may be mined at any moment
        if isinstance(block, str) and self._block_number(block) == self._node.head_number():
            return
        raise RpcError(SERVER_ERROR, "only the latest state can be asked for")


def _parse_call(call: Any) -> Call:
    if not isinstance(call, Mapping):
        raise RpcError(INVALID_PARAMS, "a call is an object")
    fields: dict[str, Any] = {}
    if call.get("from") is not None:
        fields["sender"] = _address(call["from"])
    if call.get("to") is not None:
        fields["to"] = _address(call["to"])
    data = call.get("input", call.get("data"))
    if data is not None:
        fields["data"] = _bytes(data)
    for name in ("value", "gas"):
        if call.get(name) is not None:
            fields[name] = _quantity(call[name])
    return Call(**fields)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"0x(?:[0-9a-fA-F]{2})*", value):
        raise RpcError(INVALID_PARAMS, f"{str(value)[:80]!r} is not hexadecimal data")
    return bytes.fromhex(value[2:])


def _hash(value: Any) -> str:
    data = _bytes(value)
    if len(data) != 32:
        raise RpcError(INVALID_PARAMS, f"a hash or topic has 32 bytes, not {len(data)}")
    return "0x" + data.hex()


def _address(value: Any) -> bytes:
    data = _bytes(value)
    if len(data) != 20:
        raise RpcError(INVALID_PARAMS, f"an address has 20 bytes, not {len(data)}")
    return data


def _quantity(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0x[0-9a-fA-F]{1,64}", value):
        raise RpcError(INVALID_PARAMS, f"{str(value)[:80]!r} is not a hexadecimal quantity")
    return int(value, 16)
