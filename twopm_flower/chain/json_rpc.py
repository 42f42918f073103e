"""A JSON-RPC service over HTTP, careful about what it is sent; local chains answer by it."""

import json
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

MAX_REQUEST_BYTES = 1024 * 1024
MAX_BATCH = 100
MAX_DEPTH = 32
IDLE_TIMEOUT_S = 60.0
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# https://www.jsonrpc.org/specification#error_object, and 3 and -32000 as geth uses them
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, SERVER_ERROR, LIMIT_EXCEEDED, REVERTED = -32603, -32000, -32005, 3

Methods = Mapping[str, Callable[..., Any]]

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class RpcError(Exception):
    """An error in JSON-RPC's terms."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": code, "message": message[:2000]}
        if data is not None:
            self.body["data"] = data


class AnswersRequests(Protocol):
    """What can be served."""

    def answer(self, request: Any) -> Any:
        """Answer a parsed request or batch of requests; never raises."""
        ...


def answer(methods: Methods, request: Any) -> Any:
    """Answer a parsed request, or a batch of requests, by the methods with these names.

    A method takes the request's ``params``, by position, and may raise :class:`RpcError`.
    """
    if isinstance(request, list):
        if not 0 < len(request) <= MAX_BATCH:
            return failure(
                None, RpcError(INVALID_REQUEST, f"a batch has 1 to {MAX_BATCH} requests")
            )
        return [_answer_one(methods, one) for one in request]
    return _answer_one(methods, request)


def failure(identifier: Any, error: RpcError) -> dict[str, Any]:
    """Return the answer that carries an error."""
    return {"jsonrpc": "2.0", "id": identifier, "error": error.body}


def _answer_one(methods: Methods, request: Any) -> dict[str, Any]:
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return failure(None, RpcError(INVALID_REQUEST, "not a JSON-RPC request"))
    identifier, name = request.get("id"), request["method"]
    parameters = request.get("params", [])
    try:
        result = _invoke(methods, name, parameters)
    except RpcError as error:
        return failure(identifier, error)
    except Exception as error:  # noqa: BLE001  # one request must not end the server
        message = f"internal error: {type(error).__name__}: {error}"
        return failure(identifier, RpcError(INTERNAL_ERROR, message[:500]))
    return {"jsonrpc": "2.0", "id": identifier, "result": result}


def _invoke(methods: Methods, name: str, parameters: Any) -> Any:
    if name not in methods:
        raise RpcError(METHOD_NOT_FOUND, f"the method {name[:100]} is not available")
    if not isinstance(parameters, list):
        raise RpcError(INVALID_PARAMS, "params is a list")
    method = methods[name]
    code = getattr(method, "__code__", None)
    taken = getattr(code, "co_argcount", 0) - (1 if hasattr(method, "__self__") else 0)
    needed = taken - len(getattr(method, "__defaults__", None) or ())
    if not needed <= len(parameters) <= taken:
        raise RpcError(INVALID_PARAMS, f"needs {needed} to {taken} parameters")
    return method(*parameters)


class RpcServer(ThreadingHTTPServer):
    """Serves JSON-RPC over HTTP.

    Parameters
    ----------
    endpoint : AnswersRequests
        What answers.
    host : str
        The address to bind; the loopback address keeps other machines out.
    port : int
        The port; 0 lets the system choose.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: AnswersRequests, host: str, port: int) -> None:
        self.endpoint = endpoint
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
            self._reply(status, failure(None, RpcError(INVALID_REQUEST, reason)))
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self._reply(200, self.server.endpoint.answer(_parse(body)))
        except RpcError as error:
            self._reply(200, failure(None, error))

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


def parse_json(body: bytes) -> Any:
    """Return what JSON says that somebody else wrote.

    Raises
    ------
    ValueError
        Not JSON, or nested deeper than :data:`MAX_DEPTH` levels.
    """
    # Libraries raise the recursion limit, so the parser would go deeper than the stack is.
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(body):
        if found[0] in b"[{":
            depth += 1
        elif found[0] in b"]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return json.loads(body)


def _parse(body: bytes) -> Any:
    try:
        return parse_json(body)
    except json.JSONDecodeError as error:
        raise RpcError(PARSE_ERROR, "the request is not JSON") from error
    except ValueError as error:
        raise RpcError(PARSE_ERROR, str(error)) from error
