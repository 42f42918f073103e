"""An account on Solana that sends transactions: fees, blockhashes that expire, and what landed."""

import base64
import secrets
import statistics
import time
from collections.abc import Sequence
from typing import Any

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from twopm_flower.chain.calls import SignedTransaction
from twopm_flower.chain.facts import Inclusion, Receipt
from twopm_flower.chain.solana_accounts import SolanaAccounts
from twopm_flower.chain.solana_history import COMMITMENT, SolanaHistory, signature_of
from twopm_flower.chain.solana_identity import SIGNATURE_BYTES, account_address, hash_of
from twopm_flower.chain.solana_rpc import (
    PREFLIGHT_FAILURE,
    RpcRefusedError,
    SolanaRpc,
    explain_failure,
)
from twopm_flower.errors import ChainError, ChainUnavailable
from twopm_flower.signer.ed25519 import SolanaSigner, is_signature

RECEIPT_TIMEOUT_S = 120.0
RESEND_S = 2.0
MAX_TRANSACTION_BYTES = 1232
MAX_UNITS = 1_400_000
UNITS_MARGIN = 1.2

BUMP_PERCENT = 113
"""What a replacement bids of what it replaces: at least an eighth more."""

MAX_PRICE = 5_000_000
"""The most that is ever bid, in micro-lamports per compute unit: at most 0.007 SOL in all."""

ODD_PRICE = 1024
POLL_FIRST_S, POLL_LONGEST_S = 0.02, 1.0


class SolanaAccount:
    """Sends transactions from one account; several threads and processes may share it.

    Parameters
    ----------
    rpc : SolanaRpc
        The endpoints.
    accounts : SolanaAccounts
        Reads accounts.
    history : SolanaHistory
        Reads transactions.
    signer : SolanaSigner
        Signs for the account.
    receipt_timeout_s : float
        How long a transaction may take to land, in seconds.
    """

    def __init__(
        self,
        rpc: SolanaRpc,
        accounts: SolanaAccounts,
        history: SolanaHistory,
        signer: SolanaSigner,
        *,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
    ) -> None:
        self._rpc = rpc
        self._accounts = accounts
        self._history = history
        self._signer = signer
        self._receipt_timeout_s = receipt_timeout_s
        self.key = signer.public_key
        self.address = account_address(self.key)

    def balance(self) -> int:
        """Return what the account has, in lamports."""
        answer = self._rpc.ask("getBalance", str(Pubkey(self.key)), {"commitment": COMMITMENT})
        try:
            return int(answer["value"])
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getBalance", error) from error

    def fits(self, instructions: Sequence[Instruction]) -> bool:
        """Tell whether instructions fit one transaction."""
        message = self._message(instructions, Hash.default(), MAX_UNITS, MAX_PRICE)
        return 1 + SIGNATURE_BYTES + len(bytes(message)) <= MAX_TRANSACTION_BYTES

    def transact(self, what: str, instructions: Sequence[Instruction]) -> Receipt:
        """Send a transaction and see to it that it lands.

        Parameters
        ----------
        what : str
            What it does, for messages.
        instructions : sequence of Instruction
            What it consists of; all of them take effect or none.

        Raises
        ------
        TransactionReverted
            The program says no; most often before anything is paid.
        ChainUnavailable
            Nobody answers, or it does not land in time.
        """
        deadline = time.monotonic() + self._receipt_timeout_s
        while time.monotonic() < deadline:
            transaction = self.sign(what, instructions)
            # Nodes drop transactions without a word: the same bytes are sent until they land or
            # can land no more, and only then is anything else signed.
            while self.broadcast(transaction, what) and time.monotonic() < deadline:
                patience = min(RESEND_S, deadline - time.monotonic())
                receipt = self._landed(transaction.transaction_hash, what, max(0.0, patience))
                if receipt is not None:
                    return receipt
        raise ChainUnavailable(
            f"{what} did not get into a block in {self._receipt_timeout_s:g} s",
            hint="Try again: nothing is done twice. The cluster may be congested.",
        )

    def units_of(self, what: str, instructions: Sequence[Instruction]) -> int:
        """Simulate a transaction and return how many compute units to allow it.

        Raises
        ------
        TransactionReverted
            It would fail.
        """
        message = self._message(instructions, Hash.default(), MAX_UNITS, 0)
        unsigned = VersionedTransaction.populate(message, [Signature.default()])
        raw = bytes(unsigned)
        if len(raw) > MAX_TRANSACTION_BYTES:
            raise ChainError(
                f"{what} takes {len(raw)} bytes, and a transaction {MAX_TRANSACTION_BYTES}",
                hint="Give shorter values.",
            )
        options = {
            "encoding": "base64",
            "commitment": COMMITMENT,
            "sigVerify": False,
            "replaceRecentBlockhash": True,
        }
        answer = self._rpc.ask("simulateTransaction", base64.b64encode(raw).decode(), options)
        try:
            outcome = answer["value"]
            error, logs, units = outcome["err"], outcome["logs"] or [], outcome["unitsConsumed"]
        except (TypeError, LookupError) as failure:
            raise self._rpc.unusable("simulateTransaction", failure) from failure
        if error is not None:
            raise explain_failure(error, what, logs)
        if not isinstance(units, int) or not 0 <= units <= MAX_UNITS:
            raise self._rpc.unusable("simulateTransaction", f"{str(units)[:40]} compute units")
        return min(MAX_UNITS, int(units * UNITS_MARGIN))

    def sign(
        self,
        what: str,
        instructions: Sequence[Instruction],
        *,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        """Sign a transaction, after a simulation, without sending it.

        Parameters
        ----------
        what, instructions
            As for :meth:`transact`.
        replacing : SignedTransaction, optional
            One that this one has to outbid.

        Raises
        ------
        TransactionReverted
            The simulation fails.
        ChainError
            It does not fit a transaction, would cost too much, or the signer answers what is
            no signature.
        """
        units = self.units_of(what, instructions)
        price = self._price(instructions)
        if replacing is not None:
            price = max(price, replacing.fee * BUMP_PERCENT // 100 + 1)
        if price > MAX_PRICE:
            raise ChainError(
                f"{what} would bid {price} micro-lamports per unit, and {MAX_PRICE} is the limit",
                hint="Wait until the cluster is less busy.",
            )
        blockhash, expires_at = self._latest_blockhash()
        message = self._message(instructions, blockhash, units, price)
        signature = self._signer.sign_solana_message(bytes(message))
        if not is_signature(self.key, bytes(message), signature):
            raise ChainError(
                f"the signer of {Pubkey(self.key)} answered what is no signature of {what}",
                hint="Check which key the signer holds.",
            )
        signed = VersionedTransaction.populate(message, [Signature(signature)])
        return SignedTransaction(
            raw=bytes(signed),
            transaction_hash="0x" + signature.hex(),
            fee=price,
            expires_at=expires_at,
        )

    def broadcast(self, transaction: SignedTransaction, what: str = "a transaction") -> bool:
        """Send a signed transaction, or send it again.

        Returns
        -------
        bool
            False when it can never land any more: its blockhash is too old.

        Raises
        ------
        TransactionReverted
            It did not land, and would fail by now.
        """
        options = {"encoding": "base64", "preflightCommitment": COMMITMENT}
        try:
            self._rpc.call("sendTransaction", base64.b64encode(transaction.raw).decode(), options)
        except RpcRefusedError as error:
            if error.code != PREFLIGHT_FAILURE:
                raise ChainError(f"{self._rpc.name} refused {what}: {error}") from error
            reason, logs = _preflight(error.data)
            if reason == "AlreadyProcessed" or self._status(transaction.transaction_hash):
                return True
            if reason == "BlockhashNotFound":
                return not self._is_expired(transaction)
            raise explain_failure(reason, what, logs) from error
        return True

    def inclusion(self, transaction_hash: str) -> Inclusion | None:
        """Return where a transaction stands, or None while no confirmed block holds it."""
        status = self._status(transaction_hash)
        if status is None or status["confirmationStatus"] not in (COMMITMENT, "finalized"):
            return None
        slot = status["slot"]
        head = self._accounts.number("getSlot", {"commitment": COMMITMENT})
        block_hash = self._history.block_hash(slot)
        if block_hash is None:
            return None
        return Inclusion(
            transaction_hash=transaction_hash,
            block_number=slot,
            block_hash=block_hash,
            succeeded=status["err"] is None,
            confirmations=max(1, head - slot + 1),
            final=status["confirmationStatus"] == "finalized",
        )

    def wait(
        self, transaction_hash: str, what: str = "a transaction", *, timeout_s: float | None = None
    ) -> Receipt:
        """Wait until a transaction is in a confirmed block.

        Raises
        ------
        TransactionReverted
            It is, and it failed.
        ChainUnavailable
            Not in time.
        """
        limit = self._receipt_timeout_s if timeout_s is None else timeout_s
        receipt = self._landed(transaction_hash, what, limit)
        if receipt is None:
            raise ChainUnavailable(
                f"transaction {transaction_hash} is in no block after {limit:g} s",
                hint="Send it again: it may have been dropped, and takes effect once at most.",
            )
        return receipt

    def _landed(self, transaction_hash: str, what: str, patience_s: float) -> Receipt | None:
        deadline = time.monotonic() + patience_s
        pause = POLL_FIRST_S
        while True:
            status = self._status(transaction_hash)
            if status is not None and status["confirmationStatus"] in (COMMITMENT, "finalized"):
                if status["err"] is not None:
                    raise explain_failure(status["err"], what)
                cost = self._history.cost_of(transaction_hash)
                if cost is not None:
                    slot, units = cost
                    return Receipt(transaction_hash, slot, units, 1)
            if time.monotonic() >= deadline:
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_LONGEST_S)

    def _status(self, transaction_hash: str) -> dict[str, Any] | None:
        options = {"searchTransactionHistory": True}
        answer = self._rpc.ask("getSignatureStatuses", [signature_of(transaction_hash)], options)
        try:
            (status,) = answer["value"]
            if status is None:
                return None
            shown = {name: status[name] for name in ("slot", "err", "confirmationStatus")}
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getSignatureStatuses", error) from error
        if not isinstance(shown["slot"], int):
            raise self._rpc.unusable("getSignatureStatuses", "a slot that is no number")
        return shown

    def _is_expired(self, transaction: SignedTransaction) -> bool:
        # Asked of final blocks, and before the status: a later block cannot hold it any more.
        height = self._accounts.number("getBlockHeight", {"commitment": "finalized"})
        if transaction.expires_at is None or height <= transaction.expires_at:
            return False
        return self._status(transaction.transaction_hash) is None

    def _latest_blockhash(self) -> tuple[Hash, int]:
        answer = self._rpc.ask("getLatestBlockhash", {"commitment": COMMITMENT})
        try:
            value = answer["value"]
            return hash_of(str(value["blockhash"])), int(value["lastValidBlockHeight"])
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getLatestBlockhash", error) from error

    def _price(self, instructions: Sequence[Instruction]) -> int:
        written = {
            str(meta.pubkey) for each in instructions for meta in each.accounts if meta.is_writable
        }
        answer = self._rpc.ask("getRecentPrioritizationFees", sorted(written)[:128])
        try:
            fees = [int(entry["prioritizationFee"]) for entry in answer]
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getRecentPrioritizationFees", error) from error
        usual = int(statistics.median(fees)) if fees else 0
        # The odd part makes each transaction one of its kind: two processes that ask for the same
        # thing at once would otherwise sign the same bytes and take one for both.
        return min(max(0, usual), MAX_PRICE - ODD_PRICE) + 1 + secrets.randbelow(ODD_PRICE)

    def _message(
        self, instructions: Sequence[Instruction], blockhash: Hash, units: int, price: int
    ) -> Message:
        budget = [set_compute_unit_limit(units), set_compute_unit_price(price)]
        return Message.new_with_blockhash([*budget, *instructions], Pubkey(self.key), blockhash)


def _preflight(data: Any) -> tuple[Any, Sequence[str]]:
    if not isinstance(data, dict):
        return None, ()
    logs = data.get("logs")
    return data.get("err"), [str(line) for line in logs] if isinstance(logs, list) else ()
