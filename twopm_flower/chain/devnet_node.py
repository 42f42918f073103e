"""The embedded chain itself: a py-evm chain over a store, one block per transaction."""

import json
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth.abc import ComputationAPI, SignedTransactionAPI
from eth.chains.base import MiningChain
from eth.db.atomic import AtomicDB
from eth.exceptions import HeaderNotFound, PyEVMError, Revert
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from twopm_flower.chain.devnet_show import show_block, show_logs, show_receipt, show_transaction
from twopm_flower.chain.devnet_store import DevnetStore
from twopm_flower.chain.json_rpc import REVERTED, SERVER_ERROR, RpcError
from twopm_flower.errors import ChainError

GAS_LIMIT = 30_000_000
"""Gas that fits a block; constant."""

PRIORITY_FEE_WEI = 1_000_000_000
"""The tip that the chain suggests, in wei per unit of gas."""

FUNDS_WEI = 10**27
"""What the one funded account starts with, in wei."""

CHAIN_ID_MIN, CHAIN_ID_MAX = 2**31, 2**51
"""Chain ids are drawn from here: beyond any public chain's, and small enough for wallets,
which compute 2 * id + 36 in 53 bits."""

_ZERO_ADDRESS = b"\0" * 20


class CallError(RpcError):
    """A call or transaction cannot be executed; carries what a JSON-RPC answer needs."""

    def __init__(self, message: str, *, revert_data: bytes | None = None) -> None:
        if revert_data is None:
            super().__init__(SERVER_ERROR, message)
        else:
            super().__init__(REVERTED, message, "0x" + revert_data.hex())
        self.revert_data = revert_data


@dataclass(frozen=True)
class Call:
    """A message to be executed without a transaction."""

    sender: bytes = _ZERO_ADDRESS
    to: bytes = b""
    data: bytes = b""
    value: int = 0
    gas: int = GAS_LIMIT


@dataclass(frozen=True)
class LogFilter:
    """Which logs are wanted: each empty sequence lets everything through."""

    first_block: int
    last_block: int
    addresses: Sequence[str] = ()
    topics: Sequence[Sequence[str]] = field(default=())


class DevnetNode:
    """Executes transactions and answers questions about what it executed.

    Parameters
    ----------
    store : DevnetStore
        Where everything is kept.
    genesis_account : bytes, optional
        Address of the funded account, 20 bytes; needed when the store is empty.

    Raises
    ------
    ChainError
        The store is empty and no account was given.
    """

    def __init__(self, store: DevnetStore, *, genesis_account: bytes | None = None) -> None:
        self._store = store
        self._lock = threading.RLock()
        if store.meta("chain_id") is None:
            if genesis_account is None:
                raise ChainError("the embedded chain has no first block yet")
            _create_genesis(store, genesis_account)
        self.chain_id = int(store.meta("chain_id") or 0)
        self.genesis_hash = store.meta("genesis_hash") or ""
        self._chain: MiningChain = _chain_class(self.chain_id)(AtomicDB(store.trie))

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._store.close()

    def head_number(self) -> int:
        """Return the number of the latest block."""
        with self._lock, self._store.reading():
            return int(self._head().block_number)

    def next_base_fee_wei(self) -> int:
        """Return the base fee of the block to come, in wei per unit of gas."""
        with self._lock, self._store.reading():
            return int(self._pending_header().base_fee_per_gas)

    def account(self, address: bytes) -> tuple[int, int, bytes]:
        """Return an account's nonce, balance in wei, and code."""
        with self._lock, self._store.reading():
            state = self._chain.get_vm(self._pending_header()).state
            who = Address(address)
            return state.get_nonce(who), state.get_balance(who), state.get_code(who)

    def storage(self, address: bytes, slot: int) -> int:
        """Return a word of a contract's storage."""
        with self._lock, self._store.reading():
            state = self._chain.get_vm(self._pending_header()).state
            return int(state.get_storage(Address(address), slot))

    def send_raw_transaction(self, raw: bytes) -> str:
        """Execute a signed transaction in a block of its own.

        Returns
        -------
        str
            Its hash.

        Raises
        ------
        CallError
            Malformed, known already, for another chain, with another nonce than the next,
            or not affordable. A transaction that reverts is mined all the same.
        """
        digest = "0x" + keccak(raw).hex()
        with self._lock:
            if self._store.receipt(digest) is not None:
                raise CallError("already known")
            transaction = self._decode(raw)
            try:
                with self._store.writing():
                    self._mine(transaction, digest)
            except (ValidationError, PyEVMError) as error:
                raise CallError(str(error)) from error
            return digest

    def call(self, call: Call) -> bytes:
        """Execute a message on the latest state and forget its effects.

        Returns
        -------
        bytes
            What it returned.

        Raises
        ------
        CallError
            It reverted, with its revert data, or ran out of gas.
        """
        with self._lock, self._store.reading():
            return bytes(self._execute(call).output)

    def estimate_gas(self, call: Call) -> int:
        """Return the gas limit with which a message succeeds.

        Raises
        ------
        CallError
            It fails with all the gas of a block.
        """
        with self._lock, self._store.reading():
            computation = self._execute(call)
            # A sub-call may keep back 1/64 of the gas (EIP-150), so what was used may not do.
            # Data pay a floor price (EIP-7623) beside which execution may be cheap.
            zeros = call.data.count(0)
            floor = 21_000 + 10 * (zeros + 4 * (len(call.data) - zeros))
            enough = max(floor, self._gas_used(call, computation))
            while enough < call.gas:
                trial = Call(call.sender, call.to, call.data, call.value, enough)
                try:
                    self._execute(trial)
                except CallError:
                    enough = min(call.gas, enough + enough // 8)
                else:
                    return enough
            return call.gas

    def block(self, number: int, *, full: bool = False) -> dict[str, Any] | None:
        """Return a block as JSON-RPC shows it, with hashes or bodies of transactions, or None."""
        with self._lock, self._store.reading():
            try:
                header = self._chain.get_canonical_block_header_by_number(BlockNumber(number))
            except HeaderNotFound:
                return None
            transactions = self._store.transactions_of(number)
        return show_block(
            header, [json.loads(body) if full else digest for digest, body in transactions]
        )

    def block_number_of(self, block_hash: bytes) -> int | None:
        """Return the number of the block with a hash, or None."""
        with self._lock, self._store.reading():
            try:
                return int(self._chain.get_block_header_by_hash(Hash32(block_hash)).block_number)
            except HeaderNotFound:
                return None

    def transaction(self, digest: str) -> Any:
        """Return a mined transaction as JSON-RPC shows it, or None."""
        with self._lock:
            body = self._store.transaction(digest)
        return None if body is None else json.loads(body)

    def receipt(self, digest: str) -> Any:
        """Return the receipt of a mined transaction as JSON-RPC shows it, or None."""
        with self._lock:
            body = self._store.receipt(digest)
        return None if body is None else json.loads(body)

    def logs(self, wanted: LogFilter) -> list[Any]:
        """Return logs in order, as JSON-RPC shows them."""
        topics = [list(options) for options in wanted.topics]
        first, second = (*topics[:2], [], [])[:2]
        with self._lock:
            bodies = self._store.logs(
                wanted.first_block, wanted.last_block, wanted.addresses, first, second
            )
        logs = [json.loads(body) for body in bodies]
        return [log for log in logs if _topics_match(log["topics"], topics)]

    def _decode(self, raw: bytes) -> SignedTransactionAPI:
        vm: Any = self._chain.get_vm(self._pending_header())
        try:
            transaction: SignedTransactionAPI = vm.get_transaction_builder().decode(raw)
            transaction.validate()
            sender = transaction.sender
        except (RLPException, ValidationError, PyEVMError, ValueError, TypeError) as error:
            raise CallError(f"the transaction cannot be read: {error}") from error
        if transaction.chain_id != self.chain_id:
            raise CallError(
                f"invalid chain id for signer: have {transaction.chain_id} want {self.chain_id}"
            )
        expected = vm.state.get_nonce(sender)
        if transaction.nonce < expected:
            raise CallError(f"nonce too low: next nonce {expected}, tx nonce {transaction.nonce}")
        if transaction.nonce > expected:
            raise CallError(f"nonce too high: next nonce {expected}, tx nonce {transaction.nonce}")
        return transaction

    def _mine(self, transaction: SignedTransactionAPI, digest: str) -> None:
        # The chain's own pending header may carry an old time, or the traces of a failure.
        self._chain.header = self._pending_header()
        self._chain.apply_transaction(transaction)
        block = self._chain.mine_block(
            coinbase=_ZERO_ADDRESS, mix_hash=secrets.token_bytes(32), blob_gas_used=0
        )
        receipt = block.get_receipts(self._chain.chaindb)[0]
        shown = show_transaction(block, transaction, digest)
        logs = show_logs(block, receipt, digest)
        outcome = show_receipt(block, transaction, receipt, shown, logs)
        self._store.add_transaction(digest, block.number, json.dumps(shown), json.dumps(outcome))
        for position, log in enumerate(logs):
            self._store.add_log(
                block.number, position, log["address"], log["topics"], json.dumps(log)
            )

    def _head(self) -> Any:
        return self._chain.get_canonical_head()

    # py-evm declares headers as they were before the forks that added to them.
    def _pending_header(self) -> Any:
        head = self._head()
        # Time must grow from block to block, so a burst of blocks runs ahead of the clock.
        timestamp = max(int(time.time()), head.timestamp + 1)
        return self._chain.create_header_from_parent(
            head, timestamp=timestamp, gas_limit=head.gas_limit
        )

    def _execute(self, call: Call) -> ComputationAPI:
        vm: Any = self._chain.get_vm(self._pending_header())
        state = vm.state
        price = int(state.execution_context.base_fee_per_gas)
        unsigned = vm.create_unsigned_transaction(
            nonce=state.get_nonce(call.sender),
            gas_price=price,
            gas=min(call.gas, GAS_LIMIT),
            to=call.to,
            value=call.value,
            data=call.data,
        )
        state.set_balance(call.sender, state.get_balance(call.sender) + GAS_LIMIT * price)
        try:
            computation: ComputationAPI = state.apply_transaction(
                SpoofTransaction(unsigned, from_=call.sender)
            )
        except (ValidationError, PyEVMError) as error:
            raise CallError(str(error)) from error
        if computation.is_error:
            if isinstance(computation.error, Revert):
                raise CallError("execution reverted", revert_data=bytes(computation.output))
            raise CallError(f"{type(computation.error).__name__}: {computation.error}")
        return computation

    @staticmethod
    def _gas_used(call: Call, computation: ComputationAPI) -> int:
        # Refunds come after the execution, which needs the gas first.
        return min(call.gas, GAS_LIMIT) - int(computation.get_gas_remaining())


def _chain_class(chain_id: int) -> Any:
    return type(
        "DevnetChain",
        (MiningChain,),
        {"chain_id": chain_id, "vm_configuration": ((0, PragueVM),)},
    )


def _create_genesis(store: DevnetStore, account: bytes) -> None:
    chain_id = CHAIN_ID_MIN + secrets.randbelow(CHAIN_ID_MAX - CHAIN_ID_MIN)
    header = {
        "difficulty": 0,
        "gas_limit": GAS_LIMIT,
        "timestamp": int(time.time()),
        "coinbase": _ZERO_ADDRESS,
        "nonce": b"\0" * 8,
        # Two chains that drew the same id still differ in their first block.
        "extra_data": secrets.token_bytes(32),
    }
    funded = {account: {"balance": FUNDS_WEI, "nonce": 0, "code": b"", "storage": {}}}
    with store.writing():
        chain = _chain_class(chain_id).from_genesis(AtomicDB(store.trie), header, funded)
        store.set_meta("chain_id", str(chain_id))
        store.set_meta("genesis_hash", "0x" + chain.get_canonical_head().hash.hex())


def _topics_match(topics: Sequence[str], wanted: Sequence[Sequence[str]]) -> bool:
    if len(topics) < len(wanted):
        return False
    return all(not options or topics[place] in options for place, options in enumerate(wanted))
