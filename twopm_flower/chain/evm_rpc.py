"""JSON-RPC endpoints through web3: bounded, retried, failing over, and with our own errors."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import requests
from eth_typing import HexStr
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3
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
from web3.providers.rpc.utils import ExceptionRetryConfiguration
from web3.types import RPCEndpoint, RPCResponse

from twopm_flower.chain.calls import hexadecimal
from twopm_flower.chain.contracts import explain_revert
from twopm_flower.chain.evm_failover import FailingOver
from twopm_flower.errors import ChainError, ChainUnavailable, WrongChain
from twopm_flower.records.bundle import Deployment

REQUEST_TIMEOUT_S = 10.0
RETRIES = 3


class AnswersRequests(Protocol):
    """An endpoint in this process, such as the embedded chain."""

    def answer(self, request: Any) -> Any:
        """Answer a parsed JSON-RPC request."""
        ...


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
            self._provider = _http(endpoint, timeout_s, RETRIES)
        elif isinstance(endpoint, tuple):
            self._name = ", ".join(endpoint)
            # Another endpoint is a better second try than the same one.
            providers = [(url, _http(url, timeout_s, 1)) for url in endpoint]
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
        except (BadFunctionCallOutput, LogTopicError, MismatchedABI) as error:
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
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        # Through JSON and back, so that nothing differs from an answer over a wire.
        answer = self._endpoint.answer(json.loads(json.dumps(request)))
        response: RPCResponse = json.loads(json.dumps(answer))
        return response

    def is_connected(self, show_traceback: bool = False) -> bool:
        return True


def _http(url: str, timeout_s: float, retries: int) -> HTTPProvider:
    return HTTPProvider(
        url,
        request_kwargs={"timeout": timeout_s},
        # web3's default names the builtin ConnectionError, which requests never raises.
        exception_retry_configuration=ExceptionRetryConfiguration(
            errors=(requests.ConnectionError, requests.Timeout),
            retries=retries,
            backoff_factor=0.1,
        ),
    )


def _revert_data(data: Any) -> bytes:
    text = data if isinstance(data, str) else ""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return b""
