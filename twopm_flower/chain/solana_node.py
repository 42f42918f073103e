"""The local Solana chain itself: LiteSVM over a store, one block per transaction.

LiteSVM runs the virtual machine of a validator in this process. What it lacks is added here:
slots that advance, hashes of blocks that are chained and grow old, and state that survives.
One process decides alone, so a block is final at once.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from solders.account import Account
from solders.clock import Clock
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from twopm_flower.chain.solana_identity import chain_id_of
from twopm_flower.chain.solana_program import LOADER, PROGRAM_ID, packaged_program
from twopm_flower.chain.solana_store import Block, SolanaStore, StoredAccount, StoredTransaction
from twopm_flower.errors import ChainError

VALID_BLOCKS = 150
"""How many further blocks a block's hash is good for, as on a cluster."""

MAX_TRANSACTION_BYTES = 1232
FUNDS_LAMPORTS = 10**15
_SYSTEM = Pubkey.default()


@dataclass(frozen=True)
class Outcome:
    """What came of executing a transaction; `error` is JSON as a cluster tells it, or None."""

    error: Any
    logs: tuple[str, ...]
    units: int
    fee: int


class RefusedError(Exception):
    """A transaction gets into no block; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.error}")
        self.outcome = outcome


class SolanaNode:
    """Executes transactions, and keeps what they did.

    Parameters
    ----------
    store : SolanaStore
        Where everything is kept.
    account : bytes, optional
        The key that gets all funds; needed when the store is empty.
    program : bytes, optional
        The ELF to load at :data:`PROGRAM_ID` when the store is empty; ours otherwise.

    Raises
    ------
    ChainError
        The store is empty and no account was given.
    """

    def __init__(
        self, store: SolanaStore, *, account: bytes | None = None, program: bytes | None = None
    ) -> None:
        self.store = store
        self.lock = threading.RLock()
        if store.head() is None:
            if account is None:
                raise ChainError("the local Solana chain has no first block yet")
            _create_genesis(store, account, packaged_program() if program is None else program)
        self.genesis_hash = store.meta("genesis_hash") or ""
        self.chain_id = chain_id_of(bytes(Hash.from_string(self.genesis_hash)))
        self._svm: LiteSVM | None = None

    def close(self) -> None:
        """Close the store."""
        with self.lock:
            self.store.close()

    def head(self) -> Block:
        """Return the latest block."""
        block = self.store.head()
        if block is None:
            raise ChainError("the local Solana chain has no first block yet")
        return block

    def is_recent(self, blockhash: str) -> bool:
        """Tell whether a transaction with this block's hash could get into the next block."""
        named = self.store.block_by_hash(blockhash)
        return named is not None and self.head().slot < named.slot + VALID_BLOCKS

    def rent_exempt_lamports(self, size: int) -> int:
        """Return what an account of this size must hold."""
        with self.lock:
            return int(self._machine().minimum_balance_for_rent_exemption(size))

    def simulate(self, transaction: VersionedTransaction, *, replace_hash: bool) -> Outcome:
        """Execute a transaction as if in the next block, without its signatures' being checked."""
        with self.lock:
            if not replace_hash and not self.is_recent(str(transaction.message.recent_blockhash)):
                return Outcome("BlockhashNotFound", (), 0, 0)
            self._advance()
            return _outcome(self._machine().simulate_transaction(transaction))

    def execute(self, transaction: VersionedTransaction, *, preflight: bool) -> str:
        """Execute a transaction in a block of its own.

        Parameters
        ----------
        transaction : VersionedTransaction
            With its signatures.
        preflight : bool
            Refuse one that would fail, instead of taking its fee.

        Returns
        -------
        str
            Its signature in base58.

        Raises
        ------
        RefusedError
            It gets into no block.
        """
        signature = str(transaction.signatures[0])
        with self.lock:
            if not all(transaction.verify_with_results()):
                raise RefusedError(Outcome("SignatureFailure", (), 0, 0))
            if self.store.transaction(signature) is not None:
                raise RefusedError(Outcome("AlreadyProcessed", (), 0, 0))
            if preflight:
                expected = self.simulate(transaction, replace_hash=False)
                if expected.error is not None:
                    raise RefusedError(expected)
            elif not self.is_recent(str(transaction.message.recent_blockhash)):
                raise RefusedError(Outcome("BlockhashNotFound", (), 0, 0))
            try:
                self._execute(transaction, signature)
            except BaseException:
                # What the machine did is not in the store: it starts again from there.
                self._svm = None
                raise
        return signature

    def _execute(self, transaction: VersionedTransaction, signature: str) -> None:
        now = self._advance()
        machine = self._machine()
        outcome = _outcome(machine.send_transaction(transaction))
        if outcome.error is not None and "InstructionError" not in outcome.error:
            raise RefusedError(outcome)
        head = self.head()
        slot = head.slot + 1
        chained = hashlib.sha256(
            bytes(Hash.from_string(head.hash))
            + slot.to_bytes(8, "little")
            + b"".join(bytes(each) for each in transaction.signatures)
        )
        keys = list(transaction.message.account_keys)
        meta = {
            "err": outcome.error,
            "status": {"Ok": None} if outcome.error is None else {"Err": outcome.error},
            "fee": outcome.fee,
            "logMessages": list(outcome.logs),
            "computeUnitsConsumed": outcome.units,
        }
        with self.store.writing():
            self.store.add_block(Block(slot, str(Hash(chained.digest())), head.hash, now))
            self.store.add_transaction(
                StoredTransaction(signature, slot, bytes(transaction), json.dumps(meta)),
                [bytes(key) for key in keys],
            )
            for key in keys:
                self._keep(machine, key)

    def _keep(self, machine: LiteSVM, key: Pubkey) -> None:
        account = machine.get_account(key)
        if account is not None and account.executable:
            return
        if account is None:
            gone = StoredAccount(bytes(key), 0, bytes(_SYSTEM), b"", executable=False)
            self.store.set_account(gone)
            return
        self.store.set_account(
            StoredAccount(
                bytes(key),
                account.lamports,
                bytes(account.owner),
                bytes(account.data),
                executable=False,
            )
        )

    def _advance(self) -> int:
        # The clock stands where it will stand in the next block.
        head = self.head()
        now = max(head.time, int(time.time()))
        self._machine().set_clock(
            Clock(
                slot=head.slot + 1,
                epoch_start_timestamp=0,
                epoch=0,
                leader_schedule_epoch=0,
                unix_timestamp=now,
            )
        )
        return now

    def _machine(self) -> LiteSVM:
        if self._svm is not None:
            return self._svm
        machine = (
            LiteSVM().with_sigverify(False).with_blockhash_check(False).with_transaction_history(0)
        )
        for stored in self.store.accounts():
            key = Pubkey(stored.key)
            if stored.executable:
                machine.add_program_with_loader(key, stored.data, Pubkey(stored.owner))
                continue
            machine.set_account(
                key,
                Account(
                    lamports=stored.lamports,
                    data=stored.data,
                    owner=Pubkey(stored.owner),
                    executable=False,
                    rent_epoch=2**64 - 1,
                ),
            )
        self._svm = machine
        return machine


def _create_genesis(store: SolanaStore, account: bytes, program: bytes) -> None:
    genesis = str(Hash(secrets.token_bytes(32)))
    with store.writing():
        store.set_meta("genesis_hash", genesis)
        store.add_block(Block(0, genesis, genesis, int(time.time())))
        faucet = bytes(_faucet(genesis).pubkey())
        store.set_account(
            StoredAccount(faucet, FUNDS_LAMPORTS, bytes(_SYSTEM), b"", executable=False)
        )
        store.set_account(
            StoredAccount(account, FUNDS_LAMPORTS, bytes(_SYSTEM), b"", executable=False)
        )
        store.set_account(
            StoredAccount(bytes(PROGRAM_ID), 10**9, bytes(LOADER), program, executable=True)
        )


def _outcome(result: Any) -> Outcome:
    if isinstance(result, FailedTransactionMetadata):
        meta = result.meta()
        error = json.loads(result.to_json())["err"]
    else:
        meta = result if isinstance(result, TransactionMetadata) else result.meta()
        error = None
    return Outcome(error, tuple(meta.logs()), meta.compute_units_consumed(), meta.fee())


def signed_airdrop(node: SolanaNode, receiver: Pubkey, lamports: int) -> VersionedTransaction:
    """Return a transaction by which the chain's faucet, which anybody may ask, pays."""
    faucet = _faucet(node.genesis_hash)
    pay = TransferParams(from_pubkey=faucet.pubkey(), to_pubkey=receiver, lamports=lamports)
    # The odd unit price makes each airdrop a transaction of its own.
    odd = set_compute_unit_price(secrets.randbelow(2**20))
    message = Message.new_with_blockhash(
        [odd, transfer(pay)], faucet.pubkey(), Hash.from_string(node.head().hash)
    )
    return VersionedTransaction(message, [faucet])


def _faucet(genesis_hash: str) -> Keypair:
    seed = hashlib.sha256(b"twopm-flower/solana/faucet/v1" + genesis_hash.encode()).digest()
    return Keypair.from_seed(seed)


def transaction_from_base64(text: str) -> VersionedTransaction:
    """Return a transaction from its wire form; ValueError when it is none.

    Raises
    ------
    ValueError
        Not base64, too large, or not exactly one transaction of version 0 or older.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise ValueError(f"{len(raw)} bytes, and {MAX_TRANSACTION_BYTES} are allowed")
    transaction = VersionedTransaction.from_bytes(raw)
    if bytes(transaction) != raw:
        raise ValueError("bytes that are no part of it")
    transaction.sanitize()
    if getattr(transaction.message, "address_table_lookups", None):
        raise ValueError("the local chain has no address lookup tables")
    return transaction
