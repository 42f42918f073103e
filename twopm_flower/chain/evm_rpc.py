"""A JSON-RPC endpoint through web3: bounded, retried, and with our own errors."""

import json
from collections.abc import Iterator
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
from twopm_flower.errors import ChainError, ChainUnavailable, WrongChain

REQUEST_TIMEOUT_S = 10.0
RETRIES = 3


class AnswersRequests(Protocol):
    """An endpoint in this process, such as the embedded chain."""

    def answer(self, request: Any) -> Any:
        """Answer a parsed JSON-RPC request."""
        ...


Endpoint = str | AnswersRequests
"""``http://`` or ``https://`` address of a node, or one in this process."""


class EvmRpc:
    """Asks one endpoint.

    Parameters
    ----------
    endpoint : Endpoint
        The node.
    timeout_s : float
        How long one request may take, in seconds.

    Attributes
    ----------
    web3 : Web3
        To be used inside :meth:`asking`.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        if isinstance(endpoint, str):
            self.name = endpoint
            provider: BaseProvider = _http(endpoint, timeout_s)
        else:
            self.name = "the chain in this process"
            provider = _InProcess(endpoint)
        # A contract could otherwise make us fetch a web address of its choice (EIP-3668).
        provider.global_ccip_read_enabled = False
        self.web3 = Web3(provider, middleware=[])

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
        except (Web3Exception, ValueError, TypeError, KeyError) as error:
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


def _http(url: str, timeout_s: float) -> HTTPProvider:
    return HTTPProvider(
        url,
        request_kwargs={"timeout": timeout_s},
        # web3's default names the builtin ConnectionError, which requests never raises.
        exception_retry_configuration=ExceptionRetryConfiguration(
            errors=(requests.ConnectionError, requests.Timeout),
            retries=RETRIES,
            backoff_factor=0.1,
        ),
    )


def _revert_data(data: Any) -> bytes:
    text = data if isinstance(data, str) else ""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return b""
