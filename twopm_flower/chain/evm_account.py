"""An account that sends transactions: nonces, fees, and receipts that are waited for."""

import math
import secrets
import threading
import time
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3.exceptions import TransactionNotFound, Web3RPCError
from web3.types import TxParams, TxReceipt

from twopm_flower.chain.base import Inclusion, Receipt, SignedTransaction
from twopm_flower.chain.contracts import explain_revert
from twopm_flower.chain.evm_rpc import EvmRpc, hash_argument, rpc_message
from twopm_flower.errors import ChainError, ChainUnavailable
from twopm_flower.signer.base import Signer

RECEIPT_TIMEOUT_S = 120.0
GAS_MARGIN = 1.2
MAX_ODD_WEI = 2**24
# Nodes replace a transaction only for a tenth or an eighth more, on both fees.
BUMP = 1.125
POLL_FIRST_S, POLL_LONGEST_S = 0.02, 2.0

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
        self._next_nonce = 0

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
            if accepted:
                return self.wait(transaction.transaction_hash)
        raise ChainUnavailable(
            f"{what}: others kept using up the account's nonces for {self._receipt_timeout_s:g} s",
            hint="Give each busy process an account of its own.",
        )

    def next_nonce(self) -> int:
        """Return the nonce that the account's next transaction takes."""
        with self._lock, self._rpc.asking("eth_getTransactionCount") as web3:
            account = to_checksum_address(self.address)
            return max(web3.eth.get_transaction_count(account, "pending"), self._next_nonce)

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
        """Return where a transaction stands, or None while it is in no block."""
        receipt = self.receipt(transaction_hash)
        if receipt is None:
            return None
        with self._rpc.asking("the latest blocks") as web3:
            latest = int(web3.eth.block_number)
            final = int(web3.eth.get_block("finalized")["number"])
        block = int(receipt["blockNumber"])
        return Inclusion(
            transaction_hash=transaction_hash,
            block_number=block,
            block_hash="0x" + bytes(receipt["blockHash"]).hex(),
            succeeded=receipt["status"] == 1,
            confirmations=max(0, latest - block + 1),
            final=block <= final,
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
        deadline = time.monotonic() + limit
        pause = POLL_FIRST_S
        while (receipt := self.receipt(transaction_hash)) is None:
            if time.monotonic() >= deadline:
                raise ChainUnavailable(
                    f"transaction {transaction_hash} is not mined after {limit:g} s",
                    hint="Wait, or raise the time limit; it may still be mined.",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_LONGEST_S)
        if receipt["status"] != 1:
            self._raise_reverted(transaction_hash)
        return receipt

    def receipt(self, transaction_hash: str) -> TxReceipt | None:
        """Return a receipt, or None while there is none."""
        with self._rpc.asking("eth_getTransactionReceipt") as web3:
            try:
                return web3.eth.get_transaction_receipt(hash_argument(transaction_hash))
            except TransactionNotFound:
                return None

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
            "nonce": max(pending, self._next_nonce) if nonce is None else nonce,
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
            factor = max(BUMP * replacing.fee / fields["maxFeePerGas"], BUMP)
            for fee in ("maxFeePerGas", "maxPriorityFeePerGas"):
                fields[fee] = math.ceil(fields[fee] * factor)
        raw = self._signer.sign_transaction(fields)
        return SignedTransaction(
            raw=raw,
            transaction_hash="0x" + keccak(raw).hex(),
            nonce=fields["nonce"],
            fee=fields["maxFeePerGas"],
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
                    self._next_nonce = 0
                    return self.receipt(transaction.transaction_hash) is not None
                if any(known in words for known in _UNMINEABLE):
                    self._next_nonce = 0
                    return False
                if "insufficient funds" in words or "cannot afford" in words:
                    raise ChainError(
                        f"{self.address} cannot pay for the transaction",
                        hint="Send it some of the chain's currency.",
                    ) from error
                if not any(known in words for known in _KNOWN):
                    raise
        if transaction.nonce is not None:
            self._next_nonce = max(self._next_nonce, transaction.nonce + 1)
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


def to_receipt(receipt: TxReceipt) -> Receipt:
    """Return web3's receipt as ours."""
    return Receipt(
        transaction_hash="0x" + bytes(receipt["transactionHash"]).hex(),
        block_number=int(receipt["blockNumber"]),
        gas_used=int(receipt["gasUsed"]),
        status=int(receipt["status"]),
    )
