"""JSON-RPC for the embedded chain: the methods, in process or over HTTP."""

import json
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twopm_flower.chain.devnet_node import PRIORITY_FEE_WEI, Call, CallError, DevnetNode, LogFilter

CLIENT_VERSION = "twopm-devnet/1/py-evm-prague"
MAX_REQUEST_BYTES = 1024 * 1024
MAX_BATCH = 100
MAX_DEPTH = 32
MAX_FEE_HISTORY = 1024
IDLE_TIMEOUT_S = 60.0
_NEWEST = ("latest", "pending", "safe", "finalized")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# https://www.jsonrpc.org/specification#error_object, and 3 and -32000 as geth uses them
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, SERVER_ERROR, REVERTED = -32603, -32000, 3


class RpcError(Exception):
    """An error in JSON-RPC's terms."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


class JsonRpc:
    """Answers JSON-RPC requests from a node; an endpoint for a connector in this process.

    Parameters
    ----------
    node : DevnetNode
        The chain.
    """

    def __init__(self, node: DevnetNode) -> None:
        self._node = node
        self._methods: dict[str, Callable[..., Any]] = {
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
        if isinstance(request, list):
            if not 0 < len(request) <= MAX_BATCH:
                error = RpcError(INVALID_REQUEST, f"a batch has 1 to {MAX_BATCH} requests")
                return _failure(None, error)
            return [self._answer_one(one) for one in request]
        return self._answer_one(request)

    def _answer_one(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failure(None, RpcError(INVALID_REQUEST, "not a JSON-RPC request"))
        identifier, method = request.get("id"), request["method"]
        parameters = request.get("params", [])
        try:
            result = self._invoke(method, parameters)
        except RpcError as error:
            return _failure(identifier, error)
        except CallError as error:
            if error.revert_data is None:
                return _failure(identifier, RpcError(SERVER_ERROR, str(error)))
            data = "0x" + error.revert_data.hex()
            return _failure(identifier, RpcError(REVERTED, str(error), data))
        except Exception as error:  # noqa: BLE001  # one request must not end the server
            message = f"internal error: {type(error).__name__}: {error}"
            return _failure(identifier, RpcError(INTERNAL_ERROR, message[:500]))
        return {"jsonrpc": "2.0", "id": identifier, "result": result}

    def _invoke(self, name: str, parameters: Any) -> Any:
        if name not in self._methods:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name} is not available")
        if not isinstance(parameters, list):
            raise RpcError(INVALID_PARAMS, "params is a list")
        method = self._methods[name]
        code = getattr(method, "__code__", None)
        taken = getattr(code, "co_argcount", 0) - (1 if hasattr(method, "__self__") else 0)
        needed = taken - len(getattr(method, "__defaults__", None) or ())
        if not needed <= len(parameters) <= taken:
            raise RpcError(INVALID_PARAMS, f"needs {needed} to {taken} parameters")
        return method(*parameters)

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


class RpcServer(ThreadingHTTPServer):
    """Serves JSON-RPC over HTTP.

    Parameters
    ----------
    rpc : JsonRpc
        The methods.
    host : str
        The address to bind; the loopback address keeps other machines out.
    port : int
        The port; 0 lets the system choose.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, rpc: JsonRpc, host: str, port: int) -> None:
        self.rpc = rpc
        self.host_names = LOOPBACK_NAMES | {host.lower()}
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    # Head and body in one packet: two would wait for each other's acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: RpcServer

    def do_POST(self) -> None:
        """Answer a request."""
        refusal = self._refusal()
        if refusal is not None:
            status, reason = refusal
            self.close_connection = True
            self._reply(status, _failure(None, RpcError(INVALID_REQUEST, reason)))
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self._reply(200, self.server.rpc.answer(_parse(body)))
        except RpcError as error:
            self._reply(200, _failure(None, error))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Stay silent: requests are many and say nothing."""

    def _refusal(self) -> tuple[int, str] | None:
        # A page in a browser can neither set this type nor hide where it comes from without
        # asking first, and a name that an attacker points at this machine is not in the list.
        host = re.sub(r":\d+$", "", self.headers.get("Host", "")).strip("[]").lower()
        if host not in self.server.host_names:
            return 403, f"the host name {host[:100]!r} is not served here"
        if self.headers.get("Origin") is not None:
            return 403, "browsers are not served"
        kind = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            return 415, "the content type is application/json"
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            return 411, "the length is missing"
        if len(length) > 12 or int(length) > MAX_REQUEST_BYTES:
            return 413, f"a request has at most {MAX_REQUEST_BYTES} bytes"
        return None

    def _reply(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _failure(identifier: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "error": error.body}


def _parse(body: bytes) -> Any:
    # py-evm raises the recursion limit, so the parser would go deeper than the stack is.
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", body):
        depth += 1 if bracket.group() in (b"[", b"{") else -1
        if depth > MAX_DEPTH:
            raise RpcError(PARSE_ERROR, f"the request is nested deeper than {MAX_DEPTH} levels")
    try:
        return json.loads(body)
    except ValueError as error:
        raise RpcError(PARSE_ERROR, "the request is not JSON") from error


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
