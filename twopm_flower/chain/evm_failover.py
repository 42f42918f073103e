"""Asks the first of several nodes that answers and serves the pinned chain."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import requests
from web3.exceptions import ProviderConnectionError
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from twopm_flower.errors import ChainUnavailable, WrongChain
from twopm_flower.records.bundle import Deployment

RETURN_AFTER_S = 60.0
"""How long an endpoint is left alone after it failed, while others answer."""

_log = logging.getLogger(__name__)


@dataclass
class _Candidate:
    """One endpoint, and what is known of it."""

    name: str
    provider: BaseProvider
    is_pinned: bool = False
    asked_again_at: float = 0.0
    problem: str = ""
    lied: bool = False


class FailingOver(BaseProvider):
    """A web3 provider over several endpoints.

    It stays with the endpoint that answered last, and goes back to an earlier one of the list
    some time after that failed.

    Parameters
    ----------
    providers : sequence of (str, BaseProvider)
        Names and endpoints, the preferred one first.
    pinned : Deployment, optional
        Whose chain id and genesis an endpoint has to show before it is believed.
    clock : callable
        Returns seconds that only grow.
    """

    def __init__(
        self,
        providers: Sequence[tuple[str, BaseProvider]],
        pinned: Deployment | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._candidates = [_Candidate(name, provider) for name, provider in providers]
        self._expected = None if pinned is None else (pinned.chain_id, pinned.genesis_hash.lower())
        self._clock = clock
        self._current = self._candidates[0]

    @property
    def answering(self) -> str:
        """The endpoint that answered last."""
        return self._current.name

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask; see :class:`~web3.providers.base.BaseProvider`.

        Raises
        ------
        WrongChain
            Nobody is left to ask, and an endpoint serves another chain.
        ChainUnavailable
            Nobody is left to ask; the message names all and what is wrong with them.
        """
        for candidate in self._in_order():
            try:
                self._pin(candidate)
                answer = candidate.provider.make_request(method, params)
            except WrongChain as error:
                self._set_aside(candidate, str(error), lied=True)
            except (requests.RequestException, ProviderConnectionError, OSError) as error:
                self._set_aside(candidate, f"does not answer ({type(error).__name__})")
            except (ValueError, TypeError, KeyError) as error:
                self._set_aside(candidate, f"gives no usable answer ({error})")
            else:
                candidate.problem, candidate.lied = "", False
                if candidate is not self._current:
                    _log.warning("%s is asked from now on", candidate.name)
                    self._current = candidate
                return answer
        told = "; ".join(f"{candidate.name} {candidate.problem}" for candidate in self._candidates)
        if any(candidate.lied for candidate in self._candidates):
            raise WrongChain(
                f"no endpoint of the pinned chain answers: {told}",
                hint="Remove the endpoint of the other chain, or bring back those of this one.",
            )
        raise ChainUnavailable(
            f"no endpoint answers: {told}",
            hint="Check that the chain's nodes run and that the addresses are right.",
        )

    def is_connected(self, show_traceback: bool = False) -> bool:
        """Tell whether the endpoint that answered last is connected."""
        return self._current.provider.is_connected(show_traceback)

    def _in_order(self) -> list[_Candidate]:
        """Return the candidates to ask: those that failed lately come last, but do come."""
        now = self._clock()
        chosen = self._candidates.index(self._current)

        def rank(place: int) -> tuple[bool, bool, int]:
            rested = now >= self._candidates[place].asked_again_at
            # One that is preferred and rested comes before the one in use, others after it.
            return not rested, place > chosen, place

        return [self._candidates[place] for place in sorted(range(len(self._candidates)), key=rank)]

    def _pin(self, candidate: _Candidate) -> None:
        if self._expected is None or candidate.is_pinned:
            return
        chain_id = int(_result(candidate.provider, "eth_chainId", []), 16)
        first = _result(candidate.provider, "eth_getBlockByNumber", ["0x0", False])
        shown = (chain_id, str(first["hash"]).lower())
        if shown != self._expected:
            raise WrongChain(
                f"serves chain {shown[0]} with first block {shown[1]}, not chain"
                f" {self._expected[0]} with first block {self._expected[1]}"
            )
        candidate.is_pinned = True

    def _set_aside(self, candidate: _Candidate, problem: str, *, lied: bool = False) -> None:
        if candidate.problem != problem:
            _log.warning("%s %s", candidate.name, problem)
        candidate.problem, candidate.lied = problem, lied
        # Whatever comes back at this address has to show again which chain it is.
        candidate.is_pinned = False
        candidate.asked_again_at = self._clock() + RETURN_AFTER_S


def _result(provider: BaseProvider, method: str, params: list[Any]) -> Any:
    answer = provider.make_request(RPCEndpoint(method), params)
    if answer.get("result") is None:
        raise ValueError(f"{method} answers {str(answer.get('error'))[:120]}")
    return answer["result"]
