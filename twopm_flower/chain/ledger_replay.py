"""A ledger followed entry by entry: nothing in it is believed that does not follow by itself."""

from twopm_flower.chain.facts import ChainEvent
from twopm_flower.chain.ledger_actions import Action
from twopm_flower.chain.ledger_records import Entry, Genesis, SignedAction
from twopm_flower.chain.ledger_rules import Effect, decide
from twopm_flower.chain.ledger_state import LedgerState
from twopm_flower.errors import SignatureError, TransactionReverted, WrongChain

EXPIRED = "Expired"
_ADVICE = (
    "Whoever serves this ledger, or keeps the file, changed it: do not go on, "
    "and compare what others were given."
)


class Replay:
    """A ledger from its genesis up to some entry.

    Parameters
    ----------
    genesis : Genesis
        The genesis; all else follows from it.

    Attributes
    ----------
    deployment : Deployment
        The ledger, as statements name it.
    state : LedgerState
        What its entries add up to.
    events : list of ChainEvent
        Entry `n` made ``events[n - 1]``.
    digests, times : list
        Digest and time of each entry; the genesis is the first.
    numbers : dict of str to int
        The entry that each action became, by the action's digest.
    """

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.deployment = genesis.deployment()
        self.state = LedgerState()
        self.events: list[ChainEvent] = []
        self.digests = [genesis.digest]
        self.times = [genesis.time]
        self.numbers: dict[str, int] = {}

    @property
    def head(self) -> int:
        """The number of the last entry."""
        return len(self.events)

    def decide(self, action: Action, time: int) -> Effect:
        """Return what an action does as the next entry; that it is signed is known.

        Raises
        ------
        TransactionReverted
            The rules refuse it, or its time is over (``Expired``).
        """
        if action.expires_at <= self.head:
            raise TransactionReverted(
                f"{action.function} was to be done by entry {action.expires_at}, "
                f"and the ledger has {self.head}",
                error_name=EXPIRED,
                arguments={"expiresAt": action.expires_at, "head": self.head},
            )
        return decide(self.state, self.deployment, action, time)

    def take(self, entry: Entry) -> None:
        """Check the next entry and take it.

        Raises
        ------
        WrongChain
            It does not follow from what stands.
        """
        number = self.head + 1
        try:
            self._check_place(entry, number)
            entry.check_seal(self.genesis.operator, self.deployment)
            action = entry.signed.check(self.deployment)
            effect = self.decide(action, entry.time)
        except (SignatureError, TransactionReverted) as error:
            raise WrongChain(f"entry {number} cannot be: {error}", hint=_ADVICE) from error
        self.append(entry, effect)

    def append(self, entry: Entry, effect: Effect) -> None:
        """Take an entry that was checked, and that has this effect."""
        name, values = effect
        digest, done = entry.digest, entry.signed.action.digest
        event = ChainEvent(
            name=name,
            values=values,
            block_number=entry.number,
            block_hash=digest,
            transaction_hash=done,
            index=0,
        )
        self.state.take(event)
        self.events.append(event)
        self.digests.append(digest)
        self.times.append(entry.time)
        self.numbers[done] = entry.number

    def knows(self, signed: SignedAction) -> bool:
        """Tell whether an action, however signed, is an entry already."""
        return signed.action.digest in self.numbers

    def _check_place(self, entry: Entry, number: int) -> None:
        if entry.number != number or entry.previous != self.digests[-1]:
            raise WrongChain(
                f"entry {number} does not follow entry {number - 1}, which is "
                f"{self.digests[-1]}: this ledger was forked",
                hint=_ADVICE,
            )
        if entry.time < self.times[-1]:
            raise WrongChain(f"entry {number} is older than the one before", hint=_ADVICE)
        if self.knows(entry.signed):
            raise WrongChain(f"entry {number} repeats an earlier one", hint=_ADVICE)
