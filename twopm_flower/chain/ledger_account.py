"""An account of a ledger: what it asks for is signed, sent, and seen to have become an entry."""

import secrets
import time
from typing import Any

from twopm_flower.chain.facts import Receipt
from twopm_flower.chain.ledger_actions import Action
from twopm_flower.chain.ledger_reader import LedgerReader
from twopm_flower.chain.ledger_records import SignedAction, sign_action
from twopm_flower.chain.ledger_replay import EXPIRED
from twopm_flower.chain.ledger_source import Source
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    RecordError,
    TransactionReverted,
    WrongChain,
)
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.base import Signer

LIFETIME_ENTRIES = 1000
"""How many more entries there may be before an action that was signed is dead."""

MAX_SIGNATURES = 5
"""How often an action is signed anew when it expires on its way."""

_CLOCK_ERRORS = ("DeadlinePassed", EXPIRED)


class LedgerAccount(LedgerReader):
    """Reads a ledger, and adds actions to it from one account.

    Parameters
    ----------
    source : Source
        The ledger's service.
    deployment : Deployment
        The ledger to believe.
    signer : Signer
        Signs for the account.
    """

    def __init__(self, source: Source, deployment: Deployment, signer: Signer) -> None:
        super().__init__(source, deployment)
        self._signer = signer

    @property
    def account(self) -> str:
        """The account that writes, and that coordinates the tasks it creates."""
        return self._signer.address

    def _act(self, kind: type[Action], values: dict[str, Any]) -> Receipt:
        for _ in range(MAX_SIGNATURES):
            signed = self._sign(kind, values)
            try:
                number = self._send(signed)
            except TransactionReverted as error:
                if error.error_name == EXPIRED:
                    continue
                raise
            return Receipt(signed.action.digest, number, gas_used=0, status=1)
        raise ChainUnavailable(
            f"the ledger grows faster than this account's actions reach it ({kind.__name__})",
            hint="Try again, nearer to the ledger's service.",
        )

    def _sign(self, kind: type[Action], values: dict[str, Any]) -> SignedAction:
        head = {
            "author": self.account,
            "salt": "0x" + secrets.token_hex(32),
            "expires_at": self._current().head + LIFETIME_ENTRIES,
        }
        try:
            action = kind.from_json(head | values)
        except RecordError as error:
            function = kind.model_fields["function"].default
            raise ChainError(
                f"{function} cannot be called with {values}: {error.message}"[:2000],
                hint="One of the values does not fit.",
            ) from error
        return sign_action(action, self._signer, self._deployment)  # type: ignore[arg-type]  # one of AnyAction

    def _send(self, signed: SignedAction) -> int:
        """Return the number of the entry that an action became, now or earlier."""
        digest = signed.action.digest
        try:
            entry = self._source.submit(signed)
        except TransactionReverted as error:
            number = self._current().numbers.get(digest)
            if number is not None:
                return number
            if error.error_name not in _CLOCK_ERRORS:
                # The refusal is believed when our own rules agree.
                self._decide(signed.action)
                raise ChainUnavailable(
                    f"{self._source.name} refuses what the rules allow: {error.message}",
                    hint="Ask the ledger's operator.",
                ) from error
            raise
        if self._current().numbers.get(digest) != entry.number:
            raise WrongChain(
                f"{self._source.name} says that action {digest} is entry {entry.number}, "
                "and its entries do not show it",
                hint="Ask the ledger's operator.",
            )
        return entry.number

    def _decide(self, action: Action) -> None:
        replay = self._current()
        replay.decide(action, max(int(time.time()), replay.times[replay.head]))
