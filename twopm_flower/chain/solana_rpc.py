"""A cluster's JSON-RPC endpoints: bounded, retried, one after the other, and all of one cluster."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import requests

from twopm_flower.chain.calls import Call, RoundCall
from twopm_flower.chain.facts import TaskState
from twopm_flower.chain.http_post import HttpPost
from twopm_flower.chain.json_rpc import AnswersRequests, parse_json
from twopm_flower.chain.solana_identity import hash_text
from twopm_flower.chain.solana_program import program_errors
from twopm_flower.errors import ChainError, ChainUnavailable, TransactionReverted, WrongChain

REQUEST_TIMEOUT_S = 10.0
RETRIES = 3
BACKOFF_S = 0.1
MAX_ANSWER_BYTES = 64 * 1024 * 1024

# https://github.com/anza-xyz/agave, rpc-client-api/src/custom_error.rs
PREFLIGHT_FAILURE = -32002
BLOCK_MISSING = frozenset({-32001, -32004, -32007, -32009, -32014})
_BUSY = frozenset({-32005, -32016})
_TROUBLED = frozenset({429, 500, 502, 503, 504})

Endpoint = str | AnswersRequests
"""``http://`` or ``https://`` address of a node, or one in this process."""


class RpcRefusedError(Exception):
    """An endpoint's own error: its code, its words, and what came with them."""

    def __init__(self, code: int, message: str, data: Any) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class SolanaRpc:
    """Asks one endpoint after the other until one answers.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        In the order in which they are asked.
    genesis_hash : str or None
        The cluster that they have to serve, as ``0x`` and hexadecimal digits; every endpoint
        is asked for it before it is asked for anything else. None for an unknown one.
    timeout_s : float
        How long one request may take, in seconds.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        genesis_hash: str | None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._clients = [_client(endpoint, timeout_s) for endpoint in endpoints]
        self._genesis_hash = genesis_hash
        self._pinned = [genesis_hash is None] * len(self._clients)
        self._current = 0
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The endpoint that is asked first by now."""
        return self._clients[self._current].name

    def call(self, method: str, *parameters: Any) -> Any:
        """Return the result of a method.

        Raises
        ------
        ChainUnavailable
            No endpoint answers.
        WrongChain
            An endpoint serves another cluster than the pinned one.
        RpcRefusedError
            The endpoint refuses.
        """
        failures = []
        for step in range(len(self._clients)):
            index = (self._current + step) % len(self._clients)
            client = self._clients[index]
            try:
                self._check_genesis(index)
                result = _retried(client, method, parameters)
            except ChainUnavailable as error:
                failures.append(error.message)
                continue
            self._current = index
            return result
        raise ChainUnavailable(
            "; ".join(failures),
            hint="Check that the chain's node runs and that the address is right.",
        )

    def ask(self, method: str, *parameters: Any) -> Any:
        """Return the result of a method; an endpoint's refusal is a ChainError."""
        try:
            return self.call(method, *parameters)
        except RpcRefusedError as error:
            raise ChainError(f"{self.name} refused {method}: {error}") from error

    def genesis_hash(self) -> str:
        """Return the cluster's genesis hash as ``0x`` and hexadecimal digits."""
        return _genesis(self.ask("getGenesisHash"), self.name)

    def unusable(self, method: str, error: Exception | str) -> WrongChain:
        """Return the error for an answer that no honest endpoint gives."""
        return WrongChain(
            f"{self.name} gave no usable answer to {method}: {error}",
            hint="Ask another endpoint.",
        )

    def _check_genesis(self, index: int) -> None:
        if self._pinned[index]:
            return
        with self._lock:
            client = self._clients[index]
            try:
                answer = _retried(client, "getGenesisHash", ())
            except RpcRefusedError as error:
                raise ChainError(f"{client.name} refused getGenesisHash: {error}") from error
            found = _genesis(answer, client.name)
            if found != self._genesis_hash:
                raise WrongChain(
                    f"{client.name} serves the cluster with genesis hash {found},"
                    f" not {self._genesis_hash}",
                    hint="Check the address of the chain and the deployment file.",
                )
            self._pinned[index] = True


class _Client(Protocol):
    name: str

    def request(self, body: Mapping[str, Any]) -> Any:
        """Return the parsed answer."""
        ...


class _Http:
    def __init__(self, url: str, timeout_s: float) -> None:
        self.name = url
        self._http = HttpPost(url, timeout_s, MAX_ANSWER_BYTES)

    def request(self, body: Mapping[str, Any]) -> Any:
        try:
            status, text = self._http.post(json.dumps(body).encode())
        except (requests.RequestException, OSError) as error:
            raise ChainUnavailable(
                f"{self.name} does not answer: {type(error).__name__}"
            ) from error
        except ValueError as error:
            raise ChainError(f"{self.name} gives no usable answer: {error}") from error
        if status in _TROUBLED:
            raise ChainUnavailable(f"{self.name} answers with {status}")
        try:
            return parse_json(text)
        except ValueError as error:
            raise ChainError(
                f"{self.name} answers {status} and no JSON",
                hint="Check that this is the address of a Solana node's JSON-RPC service.",
            ) from error


class _InProcess:
    def __init__(self, endpoint: AnswersRequests) -> None:
        self.name = "the chain in this process"
        self._endpoint = endpoint

    def request(self, body: Mapping[str, Any]) -> Any:
        # Through JSON and back, so that nothing differs from an answer over a wire.
        return json.loads(json.dumps(self._endpoint.answer(json.loads(json.dumps(body)))))


def _client(endpoint: Endpoint, timeout_s: float) -> _Client:
    if isinstance(endpoint, str):
        return _Http(endpoint, timeout_s)
    return _InProcess(endpoint)


def _retried(client: _Client, method: str, parameters: Sequence[Any]) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    for attempt in range(RETRIES):
        try:
            return _result(client.request(body), client.name, method)
        except ChainUnavailable:
            if attempt == RETRIES - 1:
                raise
        time.sleep(BACKOFF_S * 2**attempt)
    raise ChainUnavailable(f"{client.name} does not answer")


def _result(answer: Any, name: str, method: str) -> Any:
    if not isinstance(answer, dict) or not ("result" in answer or "error" in answer):
        raise ChainError(f"{name} gives no JSON-RPC answer to {method}")
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        raise ChainError(f"{name} gives an error to {method} that is none: {str(error)[:200]}")
    words = str(error.get("message"))[:500]
    if error["code"] in _BUSY:
        raise ChainUnavailable(f"{name} lags behind: {words}")
    raise RpcRefusedError(error["code"], words, error.get("data"))


def _genesis(answer: Any, name: str) -> str:
    try:
        return hash_text(str(answer))
    except ValueError as error:
        raise WrongChain(f"{name} gives the genesis hash {str(answer)[:80]!r}") from error


def explain_failure(error: Any, what: str, logs: Sequence[str] = ()) -> TransactionReverted:
    """Return the error that says why a transaction failed.

    Parameters
    ----------
    error : object
        The cluster's own error, as its JSON-RPC tells it.
    what : str
        What was tried: ``"recordRound"``.
    logs : sequence of str
        What the programs logged, as far as it is known.
    """
    code = None
    if isinstance(error, dict) and isinstance(error.get("InstructionError"), list):
        reason = error["InstructionError"][-1]
        code = reason.get("Custom") if isinstance(reason, dict) else None
    name = program_errors().get(code) if isinstance(code, int) else None
    if name is not None:
        return TransactionReverted(f"{what} was refused: {name}", error_name=name)
    if error in ("AccountNotFound", "InsufficientFundsForFee") or any(
        "insufficient lamports" in line for line in logs
    ):
        return TransactionReverted(
            f"{what} was refused: the account cannot pay for it",
            hint="Send it some lamports.",
        )
    return TransactionReverted(f"{what} was refused: {json.dumps(error)[:300]}")


def out_of_order(
    error: TransactionReverted, call: Call, task: Callable[[str], TaskState]
) -> TransactionReverted:
    """Return an error with what a contract would add to it: where the task stands.

    Parameters
    ----------
    error : TransactionReverted
        A program's error, which is nothing but a number.
    call : Call
        What was refused.
    task : callable
        Returns a task.
    """
    if error.error_name != "OutOfOrder" or not isinstance(call, RoundCall):
        return error
    state = task(call.task_id)
    arguments: dict[str, object] = {
        "round": call.round,
        "attempt": call.attempt,
        "lastRound": state.last_round,
        "lastAttempt": state.last_attempt,
    }
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return TransactionReverted(
        f"{error.message}({shown})", error_name=error.error_name, arguments=arguments
    )
