"""JSON-RPC endpoints through web3: bounded, retried, failing over, and with our own errors."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import requests
from eth_abi.exceptions import DecodingError
from eth_typing import HexStr
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    ContractLogicError,
    LogTopicError,
    MismatchedABI,
    ProviderConnectionError,
    Web3Exception,
    Web3RPCError,
)
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from twopm_flower.chain.calls import hexadecimal
from twopm_flower.chain.contracts import explain_revert
from twopm_flower.chain.evm_answers import checked
from twopm_flower.chain.evm_failover import FailingOver
from twopm_flower.chain.http_post import HttpPost
from twopm_flower.chain.json_rpc import AnswersRequests, parse_json
from twopm_flower.errors import ChainError, ChainUnavailable, WrongChain
from twopm_flower.records.bundle import Deployment

REQUEST_TIMEOUT_S = 10.0
RETRIES = 3
BACKOFF_S = 0.1
MAX_ANSWER_BYTES = 64 * 1024 * 1024

Endpoint = str | tuple[str, ...] | AnswersRequests
"""``http://`` or ``https://`` address of a node, several of them, or one in this process."""


class EvmRpc:
    """Asks one endpoint, or the first of several that answers and serves the pinned chain.

    Parameters
    ----------
    endpoint : Endpoint
        The node. Of several the first is preferred; it is asked again some time after it
        failed.
    timeout_s : float
        How long one request may take, in seconds.
    pinned : Deployment, optional
        Whose chain id and genesis each of several endpoints has to show before its first
        answer is believed, and again after it failed.
    clock : callable
        Returns seconds that only grow.

    Attributes
    ----------
    web3 : Web3
        To be used inside :meth:`asking`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        pinned: Deployment | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider: BaseProvider
        if isinstance(endpoint, tuple) and len(endpoint) == 1:
            endpoint = endpoint[0]
        if isinstance(endpoint, str):
            self._name = endpoint
            self._provider = _Http(endpoint, timeout_s, RETRIES)
        elif isinstance(endpoint, tuple):
            self._name = ", ".join(endpoint)
            # Another endpoint is a better second try than the same one.
            providers = [(url, _Http(url, timeout_s, 1)) for url in endpoint]
            self._provider = FailingOver(providers, pinned, clock=clock)
        else:
            self._name = "the chain in this process"
            self._provider = _InProcess(endpoint)
        # A contract could otherwise make us fetch a web address of its choice (EIP-3668).
        self._provider.global_ccip_read_enabled = False
        self.web3 = Web3(self._provider, middleware=[])

    @property
    def name(self) -> str:
        """The endpoint that answered last, for messages."""
        answering = getattr(self._provider, "answering", None)
        return answering or self._name

    @contextmanager
    def asking(self, what: str) -> Iterator[Web3]:
        """Turn everything that goes wrong inside into our errors.

        Raises
        ------
        ChainUnavailable
            Nobody answers, or not in time.
        TransactionReverted
            A contract said no; its error is decoded.
        WrongChain
            The answer is not what our contracts answer.
        ChainError
            The endpoint refused for another reason.
        """
        try:
            yield self.web3
        except (requests.RequestException, ProviderConnectionError, OSError) as error:
            raise ChainUnavailable(
                f"{self.name} does not answer ({what}): {type(error).__name__}",
                hint="Check that the chain's node runs and that the address is right.",
            ) from error
        except ContractLogicError as error:
            raise explain_revert(_revert_data(error.data), what) from error
        except (BadFunctionCallOutput, DecodingError, LogTopicError, MismatchedABI) as error:
            raise WrongChain(
                f"{self.name} answers {what} as our contracts do not: {error}",
                hint="Check the addresses of the contracts.",
            ) from error
        except Web3RPCError as error:
            raise ChainError(f"{self.name} refused {what}: {rpc_message(error)}") from error
        except (Web3Exception, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ChainError(f"{self.name} gave no usable answer to {what}: {error}") from error


def rpc_message(error: Web3RPCError) -> str:
    """Return the words of an endpoint's own error."""
    body: Any = (error.rpc_response or {}).get("error")
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return str(error)


def bytes32(digest: str) -> bytes:
    """Return the 32 bytes of a digest; ChainError when it has another size."""
    return hexadecimal(digest, 32)


def hex32(value: bytes) -> str:
    """Return 32 bytes as a digest."""
    return "0x" + bytes(value).hex()


def hash_argument(digest: str) -> HexBytes:
    """Return a hash as web3's methods take it."""
    return HexBytes(HexStr(digest))


class _InProcess(BaseProvider):
    def __init__(self, endpoint: AnswersRequests) -> None:
        super().__init__()
        self._endpoint = endpoint

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        # Through JSON and back, so that nothing differs from an answer over a wire.
        answer = self._endpoint.answer(json.loads(_request(method, params)))
        return cast("RPCResponse", checked(method, json.loads(json.dumps(answer))))

    def is_connected(self, show_traceback: bool = False) -> bool:
        return True


class _Http(BaseProvider):
    def __init__(self, url: str, timeout_s: float, retries: int) -> None:
        super().__init__()
        self._http = HttpPost(url, timeout_s, MAX_ANSWER_BYTES)
        self._retries = retries

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        # What was sent may have arrived: whoever sent it looks before it is sent again.
        tries = 1 if method == "eth_sendRawTransaction" else self._retries
        for attempt in range(tries):
            try:
                status, body = self._http.post(_request(method, params))
            except (requests.ConnectionError, requests.Timeout):
                if attempt == tries - 1:
                    raise
                time.sleep(BACKOFF_S * 2**attempt)
            else:
                break
        if status >= 400:
            raise requests.HTTPError(f"status {status}")
        return cast("RPCResponse", checked(method, parse_json(body)))

    def is_connected(self, show_traceback: bool = False) -> bool:
        return True


def _request(method: str, params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return Web3.to_json(request).encode()


def _revert_data(data: Any) -> bytes:
    text = data if isinstance(data, str) else ""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return b""
