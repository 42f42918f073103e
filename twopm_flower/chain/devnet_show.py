"""Blocks, transactions, receipts and logs of the embedded chain as JSON-RPC shows them.

The fields are those of https://ethereum.github.io/execution-apis.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import rlp
from eth.abc import ReceiptAPI, SignedTransactionAPI
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak


def show_block(header: Any, transactions: Sequence[Any]) -> dict[str, Any]:
    """Return a block; `transactions` are hashes or whole transactions."""
    roots = {
        "hash": header.hash,
        "parentHash": header.parent_hash,
        "sha3Uncles": header.uncles_hash,
        "stateRoot": header.state_root,
        "transactionsRoot": header.transaction_root,
        "receiptsRoot": header.receipt_root,
        "miner": header.coinbase,
        "mixHash": header.mix_hash,
        "nonce": header.nonce,
        "extraData": header.extra_data,
        "logsBloom": int(header.bloom).to_bytes(256, "big"),
        "withdrawalsRoot": header.withdrawals_root,
        "parentBeaconBlockRoot": header.parent_beacon_block_root,
        "requestsHash": header.requests_hash,
    }
    quantities = {
        "number": header.block_number,
        "difficulty": header.difficulty,
        "gasLimit": header.gas_limit,
        "gasUsed": header.gas_used,
        "timestamp": header.timestamp,
        "baseFeePerGas": header.base_fee_per_gas,
        "blobGasUsed": header.blob_gas_used,
        "excessBlobGas": header.excess_blob_gas,
    }
    return {
        **{name: "0x" + bytes(value).hex() for name, value in roots.items()},
        **{name: hex(value) for name, value in quantities.items()},
        "transactions": list(transactions),
        "uncles": [],
        "withdrawals": [],
    }


def show_transaction(block: Any, transaction: SignedTransactionAPI, digest: str) -> dict[str, Any]:
    """Return a mined transaction."""
    base_fee = int(block.header.base_fee_per_gas)
    price = min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + base_fee)
    shown: dict[str, Any] = {
        "hash": digest,
        "blockHash": "0x" + block.hash.hex(),
        "blockNumber": hex(block.number),
        "transactionIndex": "0x0",
        "from": to_checksum_address(transaction.sender),
        "to": to_checksum_address(transaction.to) if transaction.to else None,
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas),
        "value": hex(transaction.value),
        "input": "0x" + transaction.data.hex(),
        "gasPrice": hex(price),
        "chainId": hex(transaction.chain_id or 0),
        "type": hex(transaction.type_id or 0),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
        "v": hex(transaction.y_parity),
        "yParity": hex(transaction.y_parity),
    }
    if transaction.type_id == 2:
        shown["maxFeePerGas"] = hex(transaction.max_fee_per_gas)
        shown["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_per_gas)
        shown["accessList"] = []
    return shown


def show_logs(block: Any, receipt: ReceiptAPI, digest: str) -> list[dict[str, Any]]:
    """Return the logs of a block's only transaction."""
    return [
        {
            "address": to_checksum_address(log.address),
            "topics": ["0x" + topic.to_bytes(32, "big").hex() for topic in log.topics],
            "data": "0x" + log.data.hex(),
            "blockNumber": hex(block.number),
            "blockHash": "0x" + block.hash.hex(),
            "transactionHash": digest,
            "transactionIndex": "0x0",
            "logIndex": hex(position),
            "removed": False,
        }
        for position, log in enumerate(receipt.logs)
    ]


def show_receipt(
    block: Any,
    transaction: SignedTransactionAPI,
    receipt: ReceiptAPI,
    shown: Mapping[str, Any],
    logs: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the receipt of a block's only transaction."""
    created = None
    if not transaction.to:
        created = keccak(rlp.encode([transaction.sender, transaction.nonce]))[12:]
    return {
        "transactionHash": shown["hash"],
        "transactionIndex": "0x0",
        "blockHash": shown["blockHash"],
        "blockNumber": shown["blockNumber"],
        "from": shown["from"],
        "to": shown["to"],
        "contractAddress": None if created is None else to_checksum_address(created),
        "gasUsed": hex(receipt.gas_used),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "effectiveGasPrice": shown["gasPrice"],
        "status": "0x1" if receipt.state_root == b"\x01" else "0x0",
        "logs": logs,
        "logsBloom": "0x" + receipt.bloom.to_bytes(256, "big").hex(),
        "type": shown["type"],
    }
