"""What happened to an account of our Solana program: transactions, their events and blocks."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from twopm_flower.chain.facts import ChainEvent
from twopm_flower.chain.solana_events import TRUNCATED, ProgramEvent, events_in
from twopm_flower.chain.solana_identity import SIGNATURE_BYTES, hash_text
from twopm_flower.chain.solana_rpc import BLOCK_MISSING, RpcRefusedError, SolanaRpc
from twopm_flower.errors import ChainError, ChainUnavailable

COMMITMENT = "confirmed"
"""What is believed: a supermajority voted for the block. What is final is asked separately."""

PAGE = 1000
MAX_CACHED = 10_000
MAX_LISTED = 1_000_000


@dataclass(frozen=True)
class Happened:
    """A transaction that succeeded: where it stands, what it cost, and what it told.

    `is_cut` says that its log overflowed, so that it may have told more.
    """

    transaction_hash: str
    slot: int
    block_hash: str
    units: int
    events: tuple[ProgramEvent, ...]
    is_cut: bool


@dataclass(frozen=True)
class _Listed:
    signature: str
    slot: int
    failed: bool
    final: bool


class SolanaHistory:
    """Reads the transactions that mention an account; what is final is read once.

    Parameters
    ----------
    rpc : SolanaRpc
        The endpoints.
    program : Pubkey
        The program whose events are read.
    """

    def __init__(self, rpc: SolanaRpc, program: Pubkey) -> None:
        self._rpc = rpc
        self._program = program
        self._final: dict[str, Happened] = {}

    def about(
        self, account: Pubkey, *, first_slot: int = 0, last_slot: int | None = None
    ) -> tuple[Happened, ...]:
        """Return the successful transactions that mention an account, oldest first.

        Parameters
        ----------
        account : Pubkey
            One that the transactions name.
        first_slot, last_slot : int
            The slots that are looked at, both included; without a last one, all from the first.

        Raises
        ------
        WrongChain
            An answer is not what an honest endpoint gives.
        ChainUnavailable
            No endpoint answers, or one does not have what it listed.
        """
        found = [
            self._read(listed)
            for listed in self._listed(account, first_slot)
            if not listed.failed and (last_slot is None or listed.slot <= last_slot)
        ]
        return tuple(reversed(found))

    def events(self, account: Pubkey, first_slot: int, last_slot: int) -> tuple[ChainEvent, ...]:
        """Return all events of our program that mention an account, in order."""
        found: list[ChainEvent] = []
        for happened in self.about(account, first_slot=first_slot, last_slot=last_slot):
            for event in happened.events:
                before = found[-1].index + 1 if found else 0
                same = found and found[-1].block_number == happened.slot
                found.append(
                    ChainEvent(
                        name=event.name,
                        values=event.values,
                        block_number=happened.slot,
                        block_hash=happened.block_hash,
                        transaction_hash=happened.transaction_hash,
                        index=before if same else 0,
                    )
                )
        return tuple(found)

    def block_hash(self, slot: int) -> str | None:
        """Return the hash of a slot's block, or None where the slot has none."""
        options = {
            "commitment": COMMITMENT,
            "transactionDetails": "none",
            "rewards": False,
            "maxSupportedTransactionVersion": 0,
        }
        try:
            block = self._rpc.call("getBlock", slot, options)
        except RpcRefusedError as error:
            if error.code in BLOCK_MISSING:
                return None
            raise ChainError(f"{self._rpc.name} refused getBlock: {error}") from error
        if block is None:
            return None
        try:
            return hash_text(str(block["blockhash"]))
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getBlock", error) from error

    def cost_of(self, transaction_hash: str) -> tuple[int, int] | None:
        """Return the slot of a transaction that succeeded and its compute units, or None."""
        signature = signature_of(transaction_hash)
        answer = self._transaction(signature)
        if answer is None:
            return None
        return answer["slot"], answer["meta"]["computeUnitsConsumed"]

    def _listed(self, account: Pubkey, first_slot: int) -> Iterator[_Listed]:
        before: str | None = None
        last = 2**63
        seen: set[str] = set()
        while len(seen) < MAX_LISTED:
            options: dict[str, Any] = {"limit": PAGE, "commitment": COMMITMENT}
            if before is not None:
                options["before"] = before
            answer = self._rpc.ask("getSignaturesForAddress", str(account), options)
            try:
                page = [_listed(entry) for entry in answer]
            except (TypeError, LookupError, ValueError) as error:
                raise self._rpc.unusable("getSignaturesForAddress", error) from error
            for listed in page:
                if listed.slot > last:
                    raise self._rpc.unusable("getSignaturesForAddress", "slots out of order")
                if listed.signature in seen:
                    raise self._rpc.unusable("getSignaturesForAddress", "one of them twice")
                last = listed.slot
                seen.add(listed.signature)
                if listed.slot < first_slot:
                    return
                yield listed
            if len(page) < PAGE:
                return
            before = page[-1].signature
        raise self._rpc.unusable("getSignaturesForAddress", f"more than {MAX_LISTED} of them")

    def _read(self, listed: _Listed) -> Happened:
        known = self._final.get(listed.signature)
        if known is not None:
            return known
        answer = self._transaction(listed.signature)
        block_hash = self.block_hash(listed.slot)
        if answer is None or block_hash is None:
            raise ChainUnavailable(
                f"{self._rpc.name} lists transaction {listed.signature} and does not have it",
                hint="Ask again, or ask an endpoint that keeps the whole history.",
            )
        if answer["slot"] != listed.slot or answer["meta"]["err"] is not None:
            raise self._rpc.unusable("getTransaction", "not what was listed")
        try:
            events = events_in(answer["meta"]["logMessages"], self._program)
        except ValueError as error:
            raise self._rpc.unusable("getTransaction", error) from error
        happened = Happened(
            transaction_hash="0x" + bytes(Signature.from_string(listed.signature)).hex(),
            slot=listed.slot,
            block_hash=block_hash,
            units=answer["meta"]["computeUnitsConsumed"],
            events=events,
            is_cut=TRUNCATED in answer["meta"]["logMessages"],
        )
        if listed.final:
            if len(self._final) >= MAX_CACHED:
                self._final.clear()
            self._final[listed.signature] = happened
        return happened

    def _transaction(self, signature: str) -> dict[str, Any] | None:
        options = {
            "commitment": COMMITMENT,
            "encoding": "base64",
            "maxSupportedTransactionVersion": 0,
        }
        answer = self._rpc.ask("getTransaction", signature, options)
        if answer is None:
            return None
        try:
            return _checked(answer, signature)
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getTransaction", error) from error


def signature_of(transaction_hash: str) -> str:
    """Return the base58 signature that names a transaction on the cluster.

    Raises
    ------
    ChainError
        Not ``0x`` and 128 hexadecimal digits.
    """
    try:
        raw = bytes.fromhex(transaction_hash.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != SIGNATURE_BYTES or not transaction_hash.startswith("0x"):
        raise ChainError(f"{transaction_hash[:140]!r} does not name a Solana transaction")
    return str(Signature(raw))


def _listed(entry: Any) -> _Listed:
    slot, status = entry["slot"], entry.get("confirmationStatus")
    if not isinstance(slot, int) or slot < 0:
        raise ValueError(f"the slot {slot!r}")
    signature = str(Signature.from_string(str(entry["signature"])))
    return _Listed(signature, slot, entry["err"] is not None, status == "finalized")


def _checked(answer: Any, signature: str) -> dict[str, Any]:
    encoded, encoding = answer["transaction"]
    if encoding != "base64":
        raise ValueError(f"the encoding {encoding!r}")
    transaction = VersionedTransaction.from_bytes(base64.b64decode(encoded, validate=True))
    if str(transaction.signatures[0]) != signature:
        raise ValueError("another transaction")
    if not all(transaction.verify_with_results()):
        raise ValueError("a transaction with a false signature")
    meta = answer["meta"]
    slot, units, logs = answer["slot"], meta.get("computeUnitsConsumed", 0), meta["logMessages"]
    if not isinstance(slot, int) or not isinstance(units, int):
        raise ValueError("numbers that are none")  # noqa: TRY004  # what was answered, not called
    if not isinstance(logs, list) or not all(isinstance(line, str) for line in logs):
        raise ValueError("a log that is none")
    shown = {"err": meta["err"], "logMessages": logs, "computeUnitsConsumed": units}
    return {"slot": slot, "meta": shown}
