"""Where a reader gets a ledger's entries from: its service, or its file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pydantic_core
import requests

from twopm_flower.chain.http_post import HttpPost
from twopm_flower.chain.json_rpc import LIMIT_EXCEEDED, REVERTED, AnswersRequests
from twopm_flower.chain.ledger_records import Entry, Genesis, SignedAction
from twopm_flower.chain.ledger_store import LedgerStore
from twopm_flower.errors import ChainError, ChainUnavailable, RecordError, TransactionReverted

Endpoint = str | AnswersRequests
"""``http://`` or ``https://`` address of a service, or one in this process."""

REQUEST_TIMEOUT_S = 10.0
TRIES = 3
MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Source(Protocol):
    """Hands out what it says are a ledger's genesis and entries; the reader checks."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def genesis(self) -> Genesis:
        """Return the genesis."""
        ...

    def entries(self, first: int) -> tuple[int, list[Entry]]:
        """Return the number of the last entry, and some entries from `first` on."""
        ...

    def submit(self, signed: SignedAction) -> Entry:
        """Add an action and return the entry that it became, now or earlier."""
        ...


class FileSource:
    """A ledger's file that no service needs to run over; nothing can be added.

    Parameters
    ----------
    folder : Path
        Holds ``ledger.sqlite``.

    Raises
    ------
    ChainError
        There is no ledger in it.
    """

    def __init__(self, folder: Path) -> None:
        self._store = LedgerStore(folder, read_only=True)
        self.name = f"the ledger in {folder}"

    def genesis(self) -> Genesis:
        """Return the genesis."""
        genesis = self._store.genesis()
        if genesis is None:
            raise ChainError(f"{self.name} has not begun", hint="Start it once.")
        return genesis

    def entries(self, first: int) -> tuple[int, list[Entry]]:
        """Return the number of the last entry, and some entries from `first` on."""
        return self._store.entries(first)

    def submit(self, signed: SignedAction) -> Entry:
        """Refuse: there is nobody who could seal it."""
        raise ChainUnavailable(f"{self.name} is only read", hint="Start its service to write.")


class ServiceSource:
    """A ledger's service over JSON-RPC.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        Asked in this order: the next when one does not answer.
    timeout_s : float
        How long one request may take, in seconds.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        self._endpoints = list(endpoints)
        self._http = {
            endpoint: HttpPost(endpoint, timeout_s, MAX_ANSWER_BYTES)
            for endpoint in self._endpoints
            if isinstance(endpoint, str)
        }

    @property
    def name(self) -> str:
        """What to call it: the endpoint that is asked first."""
        first = self._endpoints[0]
        return first if isinstance(first, str) else "the ledger in this process"

    def genesis(self) -> Genesis:
        """Return the genesis."""
        result = self._ask("ledger_info")
        try:
            return Genesis.from_json(_field(result, "genesis", dict))
        except RecordError as error:
            raise self._unusable(str(error)) from error

    def entries(self, first: int) -> tuple[int, list[Entry]]:
        """Return the number of the last entry, and some entries from `first` on."""
        result = self._ask("ledger_entries", first)
        try:
            entries = [Entry.from_json(entry) for entry in _field(result, "entries", list)]
            return _field(result, "head", int), entries
        except RecordError as error:
            raise self._unusable(str(error)) from error

    def submit(self, signed: SignedAction) -> Entry:
        """Add an action and return the entry that it became, now or earlier.

        Raises
        ------
        TransactionReverted
            The service says that the rules refuse it.
        ChainUnavailable
            The service does not answer, or has no time for this account.
        """
        result = self._ask("ledger_submit", signed.to_json())
        try:
            return Entry.from_json(_field(result, "entry", dict))
        except RecordError as error:
            raise self._unusable(str(error)) from error

    def _ask(self, method: str, *parameters: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        problem: Exception | None = None
        for endpoint in list(self._endpoints):
            for _ in range(TRIES):
                try:
                    body = self._post(endpoint, request)
                except (requests.RequestException, OSError) as error:
                    # An action is done once however often it arrives, so nothing is lost.
                    problem = error
                    continue
                self._prefer(endpoint)
                return self._result(body, method)
        raise ChainUnavailable(
            f"{self.name} does not answer ({method}): {type(problem).__name__}",
            hint="Check that the ledger's service runs and that the address is right.",
        ) from problem

    def _post(self, endpoint: Endpoint, request: dict[str, Any]) -> bytes:
        if not isinstance(endpoint, str):
            # Through JSON and back, so that nothing differs from an answer over a wire.
            return json.dumps(endpoint.answer(json.loads(json.dumps(request)))).encode()
        try:
            status, body = self._http[endpoint].post(json.dumps(request).encode())
        except requests.RequestException:
            raise
        except ValueError as error:
            raise self._unusable(str(error)) from error
        if status >= 500:
            # A proxy in front of a service that is down.
            raise requests.HTTPError(f"status {status}")
        return body

    def _prefer(self, endpoint: Endpoint) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.insert(0, endpoint)

    def _result(self, body: bytes, method: str) -> Any:
        try:
            answer = pydantic_core.from_json(body, allow_inf_nan=False, cache_strings="none")
        except ValueError as error:
            raise self._unusable("it is not JSON") from error
        if not isinstance(answer, dict):
            raise self._unusable("it is no JSON-RPC")
        refusal = answer.get("error")
        if refusal is None:
            return answer.get("result")
        code, message = _error(refusal)
        if code == REVERTED:
            data = refusal.get("data")
            name = data.get("error") if isinstance(data, dict) else None
            raise TransactionReverted(message, error_name=name if isinstance(name, str) else None)
        if code == LIMIT_EXCEEDED:
            raise ChainUnavailable(f"{self.name} does not serve us now: {message}")
        raise ChainError(f"{self.name} refused {method}: {message}")

    def _unusable(self, why: str) -> ChainError:
        return ChainError(f"{self.name} gave no usable answer: {why[:500]}")


def _error(error: Any) -> tuple[int, str]:
    if not isinstance(error, dict) or type(error.get("code")) is not int:
        return 0, "no reason given"
    return error["code"], str(error.get("message", "no reason given"))[:2000]


def _field(value: Any, name: str, kind: type) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if type(found) is not kind:
        raise RecordError(f"{name} is missing, or not of the type {kind.__name__}")
    return found
