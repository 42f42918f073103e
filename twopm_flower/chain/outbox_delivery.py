"""One passage over an outbox: every entry is brought as far as the chain lets it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from twopm_flower.chain.base import Delivering, Inclusion, SignedTransaction
from twopm_flower.chain.outbox_calls import words_for
from twopm_flower.chain.outbox_store import ON_CHAIN, Entry, EntryState, OutboxStore
from twopm_flower.errors import ChainUnavailable, RecordConflict, TransactionReverted, WrongChain

INCLUSION_TIMEOUT_S = 120.0
# As op-service's txmgr: four slots of Ethereum without inclusion.
BUMP_AFTER_S = 48.0
RESEND_S = 15.0
MAX_FEE_FACTOR = 5
MAX_SIGNATURES = 20
# Nodes keep 16 transactions of an account without conditions, and drop others first.
MAX_IN_FLIGHT = 16
POLL_FIRST_S, POLL_LONGEST_S = 0.02, 1.0
# Nodes replace a transaction only for an eighth more; what bids less is not worth signing.
_BUMP_NUMERATOR, _BUMP_DENOMINATOR = 9, 8

_log = logging.getLogger(__name__)


@dataclass
class _Flight:
    """An entry that was sent, and when it was sent last."""

    number: int
    sent_at: float
    problem: str = "it may still be mined"
    denied: bool = False


@dataclass
class Passage:
    """Delivers an outbox; see :class:`~twopm_flower.chain.outbox.Outbox` for the parameters."""

    store: OutboxStore
    connector: Delivering
    confirmations: int
    bump_after_s: float
    observe: Callable[[str, int], None]
    clock: Callable[[], float]
    _flights: dict[str, _Flight] = field(default_factory=dict)

    def settle(self) -> None:
        """Look again at what is mined and not final; put back what is in no block any more."""
        for entry in self.store.entries("mined", "confirmed"):
            transaction_hash = entry.transaction_hash or ""
            found = self._inclusion(transaction_hash)
            if found is None:
                # The same may stand there by other bytes: ours of another nonce, or a helper's.
                done = self._done_or_usurped(entry)
                if done is None:
                    _log.warning(
                        "%s: block %s with it is gone, it is sent again",
                        words_for(entry.call),
                        entry.block_number,
                    )
                    self.store.put_back(entry.number)
                    self.observe("reorganised", entry.number)
                    continue
                transaction_hash, found = done, self._inclusion(done)
            self._note(entry, transaction_hash, found)

    def _done_or_usurped(self, entry: Entry) -> str | None:
        try:
            return self.connector.already_done(entry.call)
        except (TransactionReverted, RecordConflict):
            # Its delivery fails with this, and holds back its own task only.
            return None

    def deliver(self, timeout_s: float) -> int:
        """Deliver what is pending; see :meth:`Outbox.deliver`."""
        lanes: dict[str, list[Entry]] = {}
        for entry in self.store.entries(but=ON_CHAIN):
            lanes.setdefault(entry.lane, []).append(entry)
        held_back = [lane for lane, line in lanes.items() if any(e.state == "failed" for e in line)]
        for lane in held_back:
            del lanes[lane]
        delivered, pause = 0, POLL_FIRST_S
        deadline = time.monotonic() + timeout_s
        while lanes:
            advanced = 0
            for lane in list(lanes):
                advanced += self._advance(lane, lanes[lane])
                if not lanes[lane]:
                    del lanes[lane]
            delivered += advanced
            if advanced:
                deadline, pause = time.monotonic() + timeout_s, POLL_FIRST_S
            elif time.monotonic() >= deadline:
                raise self._overdue(timeout_s)
            else:
                time.sleep(pause)
                pause = min(pause * 1.5, POLL_LONGEST_S)
        return delivered

    def _advance(self, lane: str, line: list[Entry]) -> int:
        """Bring a lane's first entries as far as they get; return how many were mined."""
        mined = 0
        while line:
            entry = self.store.entry(line[0].number)
            if lane not in self._flights and len(self._flights) >= MAX_IN_FLIGHT:
                break
            try:
                if not self._is_mined(lane, entry):
                    break
            except (TransactionReverted, RecordConflict) as error:
                self._flights.pop(lane, None)
                self.store.failed(entry.number, str(error))
                raise
            self._flights.pop(lane, None)
            line.pop(0)
            mined += 1
        return mined

    def _is_mined(self, lane: str, entry: Entry) -> bool:
        flight = self._flights.get(lane)
        try:
            if flight is None:
                # Asked first, because an earlier life may have been cut off just after sending.
                if self._is_done(entry):
                    return True
                self._send(entry)
                flight = self._flights[lane] = _Flight(entry.number, time.monotonic())
                entry = self.store.entry(entry.number)
            return self._look(entry, flight)
        except TransactionReverted:
            # Somebody may have been faster with the same.
            if self._is_done(entry):
                return True
            raise

    def _is_done(self, entry: Entry) -> bool:
        done = self.connector.already_done(entry.call)
        if done is None:
            return False
        self._note(entry, done, self._inclusion(done))
        return True

    def _send(self, entry: Entry) -> None:
        for _ in range(MAX_SIGNATURES):
            transaction = entry.transaction
            if transaction is None or transaction.nonce != entry.nonce:
                transaction = self._sign(entry)
            if self._broadcast(entry.number, transaction) or self._included(entry) is not None:
                return
            entry = self.store.entry(entry.number)
            next_nonce = self.connector.next_nonce()
            if next_nonce is not None and next_nonce == entry.nonce:
                # Nobody used the nonce, so the bytes are too cheap.
                if not self._outbid(entry, transaction):
                    raise ChainUnavailable(
                        f"{words_for(entry.call)} would cost more than {MAX_FEE_FACTOR} times its"
                        " first fee",
                        hint="It is sent when fees fall; 'twopm chain deliver' lets it bid anew.",
                    )
            elif next_nonce is None:
                self._sign(entry)
            else:
                self.store.release(entry.number)
            entry = self.store.entry(entry.number)
        raise ChainUnavailable(
            f"{words_for(entry.call)}: others used up its nonce {MAX_SIGNATURES} times",
            hint="Give each busy process an account of its own.",
        )

    def _sign(self, entry: Entry) -> SignedTransaction:
        nonce = self.connector.next_nonce()
        if nonce is not None:
            nonce = self.store.reserve(entry.number, nonce)
            self.observe("reserved", entry.number)
        return self._keep(entry.number, self.connector.sign_call(entry.call, nonce=nonce))

    def _keep(self, number: int, transaction: SignedTransaction) -> SignedTransaction:
        self.observe("signed", number)
        self.store.signed(number, transaction)
        self.observe("stored", number)
        return transaction

    def _broadcast(self, number: int, transaction: SignedTransaction) -> bool:
        if not self.connector.broadcast(transaction):
            return False
        self.store.sent(number, transaction.transaction_hash, self.clock())
        self.observe("sent", number)
        return True

    def _outbid(self, entry: Entry, transaction: SignedTransaction) -> bool:
        """Sign the same call for more; False when that would be more than the limit."""
        # Without a first fee somebody let the entry bid anew: what it costs now is the first.
        limit = None if entry.first_fee is None else MAX_FEE_FACTOR * entry.first_fee
        if limit is not None and transaction.fee * _BUMP_NUMERATOR > limit * _BUMP_DENOMINATOR:
            return False
        nonce = transaction.nonce
        dearer = self.connector.sign_call(entry.call, nonce=nonce, replacing=transaction)
        if limit is not None and dearer.fee > limit:
            return False
        self._keep(entry.number, dearer)
        return True

    def _look(self, entry: Entry, flight: _Flight) -> bool:
        found = self._included(entry)
        if found is None:
            self._hurry(entry, flight)
            return False
        if not found.succeeded:
            if self._is_done(entry):
                return True
            # A receipt does not say why; waiting for it does, where the chain can tell.
            self.connector.wait(found.transaction_hash, timeout_s=0)
            raise TransactionReverted(
                f"{words_for(entry.call)} was mined without effect, as {found.transaction_hash}"
            )
        self.observe("included", entry.number)
        done = self.connector.already_done(entry.call)
        if done is None:
            flight.denied = True
            flight.problem = f"{found.transaction_hash} has a receipt that the state belies"
            return False
        self._note(entry, done, found if done == found.transaction_hash else self._inclusion(done))
        return True

    def _hurry(self, entry: Entry, flight: _Flight) -> None:
        """See to it that what waits is known to the node, bids enough, and is not blocked."""
        transaction = entry.transaction
        if transaction is None:
            return
        now = self.clock()
        sent_at = entry.attempts[-1].sent_at
        overdue = sent_at is not None and now - sent_at >= self.bump_after_s
        if overdue and transaction.nonce is not None:
            self._fill_gaps(transaction.nonce)
            if transaction.fee and self._outbid(entry, transaction):
                entry = self.store.entry(entry.number)
            else:
                flight.problem = f"its fee is at {MAX_FEE_FACTOR} times the first"
        changed = entry.transaction is not transaction
        if changed or time.monotonic() - flight.sent_at >= RESEND_S:
            self._send(entry)
            flight.sent_at = time.monotonic()

    def _fill_gaps(self, nonce: int) -> None:
        """Use up the nonces below `nonce` that the chain waits for and nothing of ours has."""
        first = self.connector.next_nonce()
        held = {entry.nonce for entry in self.store.entries("reserved", "signed", "broadcast")}
        for gap in range(nonce if first is None else first, nonce):
            if gap in held:
                continue
            earlier = self.store.bytes_for(gap)
            # An isolated signer gives a nonce to one call only, and that call does no harm.
            if earlier is not None and self.connector.broadcast(earlier):
                continue
            filler = self.connector.sign_filler(gap, replacing=earlier)
            self.store.signed_filler(filler)
            _log.warning("nonce %d was lost, %s uses it up", gap, filler.transaction_hash)
            self.connector.broadcast(filler)

    def _included(self, entry: Entry) -> Inclusion | None:
        for attempt in reversed(entry.attempts):
            found = self.connector.inclusion(attempt.transaction.transaction_hash)
            if found is not None:
                return found
        return None

    def _inclusion(self, transaction_hash: str) -> Inclusion | None:
        found = self.connector.inclusion(transaction_hash)
        return found if found is not None and found.succeeded else None

    def _note(self, entry: Entry, transaction_hash: str, found: Inclusion | None) -> None:
        reached: tuple[EntryState, ...] = ("mined",)
        if found is not None and (found.final or found.confirmations >= self.confirmations):
            reached = ON_CHAIN if found.final else ("mined", "confirmed")
        self.store.on_chain(entry.number, reached[-1], transaction_hash, found)
        known = ON_CHAIN.index(entry.state) + 1 if entry.state in ON_CHAIN else 0
        for state in reached[known:]:
            self.observe(state, entry.number)

    def _overdue(self, timeout_s: float) -> ChainUnavailable | WrongChain:
        flights = self._flights.values()
        waiting = [self.store.entry(flight.number) for flight in flights]
        named = "; ".join(
            f"{words_for(entry.call)} of {entry.lane} ({flight.problem})"
            for entry, flight in zip(waiting, flights, strict=True)
        )
        if any(flight.denied for flight in flights):
            return WrongChain(
                f"the endpoint shows receipts, but not what they stand for: {named}",
                hint="Ask another endpoint: this one makes up receipts, or hides records.",
            )
        return ChainUnavailable(
            f"not mined after {timeout_s:g} s: {named}",
            hint="Deliver again, or raise the time limit: nothing is lost, nothing done twice.",
        )
