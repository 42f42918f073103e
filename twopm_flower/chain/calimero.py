"""EXPERIMENTAL: a ledger whose entries an application in a Calimero context keeps.

No Calimero node has ever run this. The application has the methods of a ledger's service,
``info()``, ``entries(from, limit)`` and ``submit(action)``, with the same JSON; readers follow
every entry by the ledger's rules, so it can withhold entries or show a fork, but neither make
up nor change one. See docs/calimero.md.

A node is asked by ``POST /jsonrpc``, method ``execute``, as its own sources spell it:
https://github.com/calimero-network/core, crates/server/primitives/src/jsonrpc.rs and
crates/server/src/jsonrpc/execute.rs; https://docs.rs/crate/calimero-server/0.10.0 describes the
service. Earlier versions ask for ``executorPublicKey``, later ones refuse it: it is sent when
``TWOPM_CALIMERO_EXECUTOR`` names one.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests

from twopm_flower.chain.backends import KeyKind, LocalChain, deployment_of
from twopm_flower.chain.http_post import HttpPost
from twopm_flower.chain.json_rpc import REVERTED, parse_json
from twopm_flower.chain.ledger_connector import LedgerConnector
from twopm_flower.chain.ledger_reader import LedgerReader
from twopm_flower.chain.ledger_source import MAX_ANSWER_BYTES, REQUEST_TIMEOUT_S, ServiceSource
from twopm_flower.chain.ledger_store import MAX_PAGE_ENTRIES
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ChainError, ChainUnavailable, ConfigError
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.base import Signer
from twopm_flower.signer.keystore import LocalSigner

FAMILY = "calimero"
EXECUTOR_VARIABLE = "TWOPM_CALIMERO_EXECUTOR"
TOKEN_VARIABLE = "TWOPM_CALIMERO_TOKEN"  # noqa: S105  # a variable's name, no secret

_METHODS = {
    "ledger_info": ("info", ()),
    "ledger_entries": ("entries", ("from", "limit")),
    "ledger_submit": ("submit", ("action",)),
}
_NOT_SYNCED = "Uninitialized"
_log = logging.getLogger(__name__)


class Context:
    """Answers a ledger's requests by executing the methods of a context's application.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://`` address of a node; ``/jsonrpc`` is added where it has no path.
    context_id : str
        The context, as the node spells it.
    timeout_s : float
        How long one request may take, in seconds.

    Raises
    ------
    ConfigError
        No context is named, or the address is none.
    """

    def __init__(self, url: str, context_id: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        if not context_id:
            raise ConfigError(
                "a chain of the family calimero needs the id of a context",
                hint="Name it as the program: --program CONTEXT_ID.",
            )
        self.url = _with_path(url)
        self._context_id = context_id
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = HttpPost(self.url, timeout_s, MAX_ANSWER_BYTES, headers=headers)

    def answer(self, request: Any) -> Any:
        """Return what a ledger's service would answer.

        Raises
        ------
        requests.RequestException, OSError
            The node does not answer, or not in time.
        ChainUnavailable
            The node has not received the context yet.
        ChainError
            The node refuses, or its answer is not usable.
        """
        method, names = _METHODS[request["method"]]
        # `limit` has a default there, and an application's methods have none.
        values = [*request["params"], MAX_PAGE_ENTRIES]
        parameters = {
            "contextId": self._context_id,
            "method": method,
            "argsJson": dict(zip(names, values, strict=False)),
        }
        if executor := os.environ.get(EXECUTOR_VARIABLE):
            parameters["executorPublicKey"] = executor
        answer = self._post(request["id"], parameters)
        if answer.get("error") is not None:
            self._refuse(method, answer["error"])
        result = answer.get("result")
        output = result.get("output") if isinstance(result, dict) else None
        if not isinstance(output, dict):
            raise self._unusable("it has no output")
        refused = output.get("refused")
        if refused is None:
            return {"jsonrpc": "2.0", "id": request["id"], "result": output}
        if not isinstance(refused, dict):
            raise self._unusable("it refuses without a reason")
        message = str(refused.get("message", "no reason given"))
        error = {"code": REVERTED, "message": message, "data": refused}
        return {"jsonrpc": "2.0", "id": request["id"], "error": error}

    def _post(self, identifier: Any, parameters: dict[str, Any]) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "id": identifier, "method": "execute", "params": parameters}
        try:
            status, body = self._http.post(json.dumps(request).encode())
        except requests.RequestException:
            raise
        except ValueError as error:
            raise self._unusable(str(error)) from error
        if status in (401, 403):
            raise ChainError(
                f"{self.url} does not let us in (status {status})",
                hint=f"Put an access token of the node into {TOKEN_VARIABLE}.",
            )
        if status >= 500:
            raise requests.HTTPError(f"status {status}")
        if status != 200:
            raise self._unusable(f"its status is {status}")
        try:
            answer = parse_json(body)
        except ValueError as error:
            raise self._unusable(str(error)) from error
        if not isinstance(answer, dict) or answer.get("id") != identifier:
            raise self._unusable("it is no JSON-RPC, or answers another request")
        return answer

    def _refuse(self, method: str, error: Any) -> NoReturn:
        kind = str(error.get("type", "no type")) if isinstance(error, dict) else "no type"
        reason = json.dumps(error)[:500]
        if kind == _NOT_SYNCED:
            raise ChainUnavailable(
                f"{self.url} has not received the context {self._context_id[:100]} yet",
                hint="Wait until the node has synchronised it.",
            )
        raise ChainError(
            f"{self.url} cannot execute {method} in the context {self._context_id[:100]}: {reason}",
            hint="Check the context's id, and that it runs an application that keeps a ledger.",
        )

    def _unusable(self, why: str) -> ChainError:
        return ChainError(f"{self.url} gave no usable answer: {why[:500]}")


class CalimeroSource(ServiceSource):
    """See :class:`~twopm_flower.chain.ledger_source.Source`; asks nodes in their order.

    Parameters
    ----------
    urls : sequence of str
        Addresses of nodes; the next is asked when one does not answer.
    context_id : str
        The context.
    timeout_s : float
        How long one request may take, in seconds.
    """

    def __init__(
        self, urls: tuple[str, ...], context_id: str, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        contexts = [Context(url, context_id, timeout_s=timeout_s) for url in urls]
        super().__init__(contexts, timeout_s=timeout_s)
        self._name = contexts[0].url
        _log.warning("the chain family calimero is EXPERIMENTAL: no Calimero node has run it yet")

    @property
    def name(self) -> str:
        """What to call it: the address that the settings name first."""
        return self._name


class CalimeroBackend:
    """EXPERIMENTAL. See :class:`~twopm_flower.chain.backends.ChainBackend`."""

    family = FAMILY
    key_kind: KeyKind = "secp256k1"

    def open_signer(self, key: Path, *, password_file: Path | None = None) -> LocalSigner:
        """Return a signer for the account whose key is in a file."""
        return LocalSigner.from_file(key, password_file=password_file)

    def open_reader(self, chain: ChainSettings) -> LedgerReader:
        """Return a reader of the pinned context."""
        return LedgerReader(_source(chain), deployment_of(chain))

    def open_offline(self, chain: ChainSettings) -> None:
        """Return None: a context is read through a node."""

    def open_connector(self, chain: ChainSettings, signer: Signer) -> LedgerConnector:
        """Return a connector for the signer's account."""
        return LedgerConnector(_source(chain), deployment_of(chain), signer)

    def deploy(self, rpc_url: str, signer: Signer, *, program: str | None = None) -> Deployment:
        """Return the deployment that follows from a context's genesis; nothing is placed.

        `program` is the context's id.
        """
        context_id = program or ""
        derived = CalimeroSource((rpc_url,), context_id).genesis().deployment()
        return derived.model_copy(update={"family": self.family, "program": context_id})

    def local_chain(self, folder: Path, *, port: int = 0) -> LocalChain:
        """Refuse: a Calimero node comes with none of our packages."""
        raise ConfigError(
            "no Calimero node can be installed here",
            hint="Run a node of your own, and name it with --rpc.",
        )


def _with_path(url: str) -> str:
    try:
        path = urlsplit(url).path
    except ValueError as error:
        raise ConfigError(
            f"{url[:200]!r} is not an address: {error}", hint="Name a node as http://HOST:PORT."
        ) from error
    return url if path.strip("/") else url.rstrip("/") + "/jsonrpc"


def _source(chain: ChainSettings) -> CalimeroSource:
    urls = (chain.rpc_url, *chain.fallback_rpc_urls)
    return CalimeroSource(urls, chain.program, timeout_s=chain.timeout_s)
