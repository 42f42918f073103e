"""What an Ethereum node's JSON-RPC answers have to look like before anything is made of them.

https://github.com/ethereum/execution-apis is the definition. Only what is read is looked at.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]

# What a database of ours, and any clock or counter, has room for.
_MOST = 2**63 - 1


def checked(method: str, answer: Any) -> Any:
    """Return an answer as it is.

    Parameters
    ----------
    method : str
        What was asked.
    answer : object
        Parsed JSON.

    Raises
    ------
    ValueError
        It is no JSON-RPC, or its result has not the form that the method's results have.
    """
    if not isinstance(answer, dict):
        raise ValueError(f"{method} is answered by no JSON-RPC")  # noqa: TRY004  # an answer
    error = answer.get("error")
    if error is not None:
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            raise ValueError(f"{method} is answered by an error without words")
        if type(error.get("code")) is not int:
            raise ValueError(f"{method} is answered by an error without a number")
        return answer
    if "result" not in answer:
        raise ValueError(f"{method} is answered by neither a result nor an error")
    if not _RESULTS.get(method, _anything)(answer["result"]):
        raise ValueError(f"{method} is answered by {str(answer['result'])[:120]!r}")
    return answer


def _anything(_: Any) -> bool:
    return True


def _hex(pattern: str) -> Check:
    form = re.compile(rf"0x{pattern}")
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


_wide = _hex("[0-9a-fA-F]{1,64}")
_data = _hex("(?:[0-9a-fA-F]{2})*")
_hash = _hex("[0-9a-fA-F]{64}")
_address = _hex("[0-9a-fA-F]{40}")


def _number(value: Any) -> bool:
    return _wide(value) and int(value, 16) <= _MOST


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _object(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    possible = optional or {}
    return lambda value: (
        isinstance(value, dict)
        and all(name in value and check(value[name]) for name, check in needed.items())
        and all(check(value[name]) for name, check in possible.items() if name in value)
    )


_log = _object(
    {
        "address": _address,
        "topics": _list_of(_hash),
        "data": _data,
        "blockNumber": _number,
        "blockHash": _hash,
        "transactionHash": _hash,
        "transactionIndex": _number,
        "logIndex": _number,
    }
)
_block = _object(
    {
        "number": _number,
        "hash": _hash,
        "timestamp": _number,
        "transactions": _list_of(_hash),
    },
    {"baseFeePerGas": _wide},
)
_receipt = _object(
    {
        "blockNumber": _number,
        "blockHash": _hash,
        "transactionHash": _hash,
        "gasUsed": _number,
        "status": _number,
        "logs": _list_of(_log),
    },
    {"contractAddress": _optional(_address)},
)
_transaction = _object(
    {"from": _address, "input": _data, "value": _wide}, {"to": _optional(_address)}
)
_RESULTS: Mapping[str, Check] = {
    "eth_chainId": _number,
    "eth_blockNumber": _number,
    "eth_getTransactionCount": _number,
    "eth_estimateGas": _number,
    "eth_getBalance": _wide,
    "eth_maxPriorityFeePerGas": _wide,
    "eth_getCode": _data,
    "eth_call": _data,
    "eth_sendRawTransaction": _hash,
    "eth_getLogs": _list_of(_log),
    "eth_getBlockByNumber": _optional(_block),
    "eth_getTransactionReceipt": _optional(_receipt),
    "eth_getTransactionByHash": _optional(_transaction),
}
