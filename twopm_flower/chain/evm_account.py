"""An account that sends transactions: nonces, fees, and receipts that are waited for."""

import secrets
import threading
import time
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3.exceptions import BlockNotFound, TransactionNotFound, Web3RPCError
from web3.types import TxParams, TxReceipt

from twopm_flower.chain.base import Inclusion, Receipt, SignedTransaction
from twopm_flower.chain.contracts import explain_revert
from twopm_flower.chain.evm_rpc import EvmRpc, hash_argument, hex32, rpc_message
from twopm_flower.errors import ChainError, ChainUnavailable, RecordError, WrongChain
from twopm_flower.signer.base import Signer
from twopm_flower.signer.transaction import decode_signed

RECEIPT_TIMEOUT_S = 120.0
GAS_MARGIN = 1.2
MAX_ODD_WEI = 2**24
POLL_FIRST_S, POLL_LONGEST_S = 0.02, 2.0
RESEND_S = 15.0
# Two epochs of Ethereum, where a node does not tell which block is final.
FINAL_DEPTH = 64

# Words of geth, anvil, reth and the embedded chain for one and the same thing.
_KNOWN = ("already known", "already imported", "known transaction", "alreadyknown")
_NONCE_USED = ("nonce too low", "nonce is too low")
_UNMINEABLE = (
    "nonce too high",
    "underpriced",
    "max fee per gas less than block base fee",
    "fee too low",
    "lower than block's base fee",
)


class EvmAccount:
    """Sends transactions from one account.

    Several threads may share it; one lock keeps their nonces apart. Another process may use
    the same account: whoever loses the race for a nonce takes the next.

    Parameters
    ----------
    rpc : EvmRpc
        The endpoint.
    signer : Signer
        Signs for the account.
    chain_id : int
        The chain that every transaction is for.
    receipt_timeout_s : float
        How long to wait for a receipt, in seconds.
    """

    def __init__(
        self,
        rpc: EvmRpc,
        signer: Signer,
        chain_id: int,
        *,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
    ) -> None:
        self._rpc = rpc
        self._signer = signer
        self._chain_id = chain_id
        self._receipt_timeout_s = receipt_timeout_s
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The account's EIP-55 address."""
        return self._signer.address

    def transact(self, what: str, data: str, *, to: str | None = None) -> TxReceipt:
        """Send a transaction and wait for its receipt.

        Parameters
        ----------
        what : str
            What it does, for messages.
        data : str
            Hexadecimal call data, or the code that deploys a contract.
        to : str, optional
            The contract; without it one is deployed.

        Raises
        ------
        TransactionReverted
            The contract says no; most often before anything is paid.
        ChainUnavailable
            Nobody answers, or it is not mined in time.
        """
        deadline = time.monotonic() + self._receipt_timeout_s
        while time.monotonic() < deadline:
            with self._lock:
                transaction = self._sign(what, data, to)
                accepted = self._broadcast(transaction)
            while accepted:
                patience = max(0.0, min(RESEND_S, deadline - time.monotonic()))
                receipt = self._await_receipt(transaction.transaction_hash, patience)
                if receipt is not None:
                    return self._effective(receipt, transaction.transaction_hash)
                if time.monotonic() >= deadline:
                    raise self._not_mined(transaction.transaction_hash, self._receipt_timeout_s)
                # A node may have lost it, in a restart for one.
                accepted = self.broadcast(transaction)
        raise ChainUnavailable(
            f"{what}: others kept using up the account's nonces for {self._receipt_timeout_s:g} s",
            hint="Give each busy process an account of its own.",
        )

    def next_nonce(self) -> int:
        """Return the nonce that the account's next transaction takes.

        It is the node's own count, with what waits in its pool: a transaction that the pool
        lost gives its nonce back.
        """
        with self._rpc.asking("eth_getTransactionCount") as web3:
            account = to_checksum_address(self.address)
            return int(web3.eth.get_transaction_count(account, "pending"))

    def sign(
        self,
        what: str,
        data: str,
        to: str,
        *,
        nonce: int | None = None,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        """Sign a transaction, without sending it.

        Parameters
        ----------
        what : str
            What it does, for messages.
        data, to : str
            Hexadecimal call data, and the contract.
        nonce : int, optional
            The nonce to use; the next one otherwise.
        replacing : SignedTransaction, optional
            A transaction of the same nonce that this one has to outbid.
        """
        with self._lock:
            return self._sign(what, data, to, nonce=nonce, replacing=replacing)

    def inclusion(self, transaction_hash: str) -> Inclusion | None:
        """Return where a transaction stands, or None while it is in no block.

        Raises
        ------
        WrongChain
            The endpoint shows a receipt for a block that does not hold the transaction.
        """
        receipt = self.receipt(transaction_hash)
        if receipt is None:
            return None
        number, claimed = receipt["blockNumber"], hex32(receipt["blockHash"])
        with self._rpc.asking("the block of a receipt") as web3:
            try:
                block = web3.eth.get_block(number)
            except BlockNotFound:
                return None
            latest = int(web3.eth.block_number)
        if hex32(block["hash"]) != claimed:
            # Its block was replaced between the two questions, or is about to be.
            return None
        if hash_argument(transaction_hash) not in block["transactions"]:
            raise WrongChain(
                f"{self._rpc.name} shows a receipt of {transaction_hash} in block {number},"
                " which does not hold it",
                hint="The receipt is forged: ask another endpoint.",
            )
        return Inclusion(
            transaction_hash=transaction_hash,
            block_number=int(number),
            block_hash=claimed,
            succeeded=receipt["status"] == 1,
            confirmations=max(1, latest - int(number) + 1),
            final=int(number) <= self._final_block(latest),
        )

    def broadcast(self, transaction: SignedTransaction) -> bool:
        """Send a signed transaction, or send it again.

        Returns
        -------
        bool
            False when it will not be mined as it stands: its nonce was used by another
            transaction, or its fee is too low.
        """
        with self._lock:
            return self._broadcast(transaction)

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> TxReceipt:
        """Wait for the receipt of a transaction.

        Raises
        ------
        TransactionReverted
            It was mined and reverted.
        ChainUnavailable
            It is not mined in time.
        """
        limit = self._receipt_timeout_s if timeout_s is None else timeout_s
        receipt = self._await_receipt(transaction_hash, limit)
        if receipt is None:
            raise self._not_mined(transaction_hash, limit)
        return self._effective(receipt, transaction_hash)

    def receipt(self, transaction_hash: str) -> TxReceipt | None:
        """Return a receipt, or None while there is none."""
        with self._rpc.asking("eth_getTransactionReceipt") as web3:
            try:
                return web3.eth.get_transaction_receipt(hash_argument(transaction_hash))
            except TransactionNotFound:
                return None

    def _await_receipt(self, transaction_hash: str, limit_s: float) -> TxReceipt | None:
        deadline = time.monotonic() + limit_s
        pause = POLL_FIRST_S
        while (receipt := self.receipt(transaction_hash)) is None:
            if time.monotonic() >= deadline:
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_LONGEST_S)
        return receipt

    def _effective(self, receipt: TxReceipt, transaction_hash: str) -> TxReceipt:
        if receipt["status"] != 1:
            self._raise_reverted(transaction_hash)
        return receipt

    def _not_mined(self, transaction_hash: str, limit_s: float) -> ChainUnavailable:
        return ChainUnavailable(
            f"transaction {transaction_hash} is not mined after {limit_s:g} s",
            hint="Wait, or raise the time limit; it may still be mined.",
        )

    def _final_block(self, latest: int) -> int:
        try:
            with self._rpc.asking("the latest final block") as web3:
                return int(web3.eth.get_block("finalized")["number"])
        except (ChainUnavailable, WrongChain):
            raise
        except (BlockNotFound, ChainError):
            return latest - FINAL_DEPTH

    def _sign(
        self,
        what: str,
        data: str,
        to: str | None,
        *,
        nonce: int | None = None,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        call: TxParams = {"from": to_checksum_address(self.address), "data": HexBytes(data)}
        if to is not None:
            call["to"] = to_checksum_address(to)
        with self._rpc.asking(what) as web3:
            gas = web3.eth.estimate_gas(call)
            pending = web3.eth.get_transaction_count(to_checksum_address(self.address), "pending")
            tip = web3.eth.max_priority_fee
            base = web3.eth.get_block("latest").get("baseFeePerGas", 0)
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": pending if nonce is None else nonce,
            "data": data,
            "value": 0,
            "gas": int(gas * GAS_MARGIN),
            # The base fee can at most double within six full blocks. The few odd wei, which are
            # not paid, make each transaction one of its kind: two processes that ask for the same
            # thing at once would otherwise sign the same bytes and take one for both.
            "maxFeePerGas": 2 * int(base) + int(tip) + secrets.randbelow(MAX_ODD_WEI),
            "maxPriorityFeePerGas": int(tip),
        }
        if to is not None:
            fields["to"] = to
        if replacing is not None:
            for fee, before in _fees(replacing.raw).items():
                # Nodes replace a transaction only for an eighth more, on both fees.
                fields[fee] = max(fields[fee], -(-9 * before // 8))
        raw = self._signer.sign_transaction(fields)
        return SignedTransaction(
            raw=raw,
            transaction_hash="0x" + keccak(raw).hex(),
            nonce=fields["nonce"],
            # A signer that was asked for this before may have signed it for other fees.
            fee=_fees(raw)["maxFeePerGas"],
        )

    def _broadcast(self, transaction: SignedTransaction) -> bool:
        if "0x" + keccak(transaction.raw).hex() != transaction.transaction_hash:
            raise ChainError(
                f"these bytes are not transaction {transaction.transaction_hash}",
                hint="They were changed after they were signed: sign the call again.",
            )
        with self._rpc.asking("eth_sendRawTransaction") as web3:
            try:
                web3.eth.send_raw_transaction(transaction.raw)
            except Web3RPCError as error:
                # "unknown transaction type" is not what nodes say of a known transaction.
                words = rpc_message(error).lower().replace("unknown transaction", "")
                if any(known in words for known in _NONCE_USED):
                    return self.receipt(transaction.transaction_hash) is not None
                if any(known in words for known in _UNMINEABLE):
                    return False
                if "insufficient funds" in words or "cannot afford" in words:
                    raise ChainError(
                        f"{self.address} cannot pay for the transaction",
                        hint="Send it some of the chain's currency.",
                    ) from error
                if not any(known in words for known in _KNOWN):
                    raise
        return True

    def _raise_reverted(self, transaction_hash: str) -> None:
        # A receipt does not say why; the same call on the latest state usually does.
        with self._rpc.asking(f"transaction {transaction_hash}") as web3:
            sent = web3.eth.get_transaction(hash_argument(transaction_hash))
            call: TxParams = {"from": sent["from"], "data": sent["input"], "value": sent["value"]}
            if sent.get("to") is not None:
                call["to"] = sent["to"]
            web3.eth.call(call)
        raise explain_revert(b"", f"transaction {transaction_hash}")


def _fees(raw: bytes) -> dict[str, int]:
    try:
        signed, _ = decode_signed(raw)
    except RecordError as error:
        raise ChainError(f"a signed transaction cannot be read: {error.message}") from error
    return {
        "maxFeePerGas": signed.max_fee_per_gas,
        "maxPriorityFeePerGas": signed.max_priority_fee_per_gas,
    }


def to_receipt(receipt: TxReceipt) -> Receipt:
    """Return web3's receipt as ours."""
    return Receipt(
        transaction_hash="0x" + bytes(receipt["transactionHash"]).hex(),
        block_number=int(receipt["blockNumber"]),
        gas_used=int(receipt["gasUsed"]),
        status=int(receipt["status"]),
    )
