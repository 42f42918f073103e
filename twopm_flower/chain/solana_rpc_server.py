"""JSON-RPC for the local Solana chain: a cluster's methods over its node.

The methods, parameters and answers are those of https://solana.com/docs/rpc, as far as our
connector and a wallet's transfer need them; binary values are base64. Every level of commitment
gets the same answer, because a block of this chain is final at once.
"""

import base64
import json
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature

from twopm_flower.chain.json_rpc import INVALID_PARAMS, Methods, RpcError, answer
from twopm_flower.chain.solana_identity import hash_of
from twopm_flower.chain.solana_node import (
    VALID_BLOCKS,
    Outcome,
    RefusedError,
    SolanaNode,
    signed_airdrop,
    transaction_from_base64,
)
from twopm_flower.chain.solana_store import Block, StoredAccount, StoredTransaction

VERSION = "2.0.0-twopm-litesvm"
MAX_SIGNATURES = 1000
MAX_SLOTS = 500_000
MAX_ACCOUNTS = 100
MAX_STATUSES = 256
LARGEST_ACCOUNT_BYTES = 10 * 1024 * 1024
MAX_AIRDROP_LAMPORTS = 10**13

# https://github.com/anza-xyz/agave, rpc-client-api/src/custom_error.rs
PREFLIGHT_FAILURE, BLOCK_NOT_AVAILABLE = -32002, -32004

_LEVELS = ("processed", "confirmed", "finalized")


class SolanaJsonRpc:
    """Answers JSON-RPC requests from a node; an endpoint for a connector in this process.

    Parameters
    ----------
    node : SolanaNode
        The chain.
    read_only : bool
        Take no transactions.
    """

    def __init__(self, node: SolanaNode, *, read_only: bool = False) -> None:
        self._node = node
        self._store = node.store
        reading: Methods = {
            "getAccountInfo": self._account_info,
            "getBalance": self._balance,
            "getBlock": self._block,
            "getBlockHeight": self._slot,
            "getBlockTime": lambda slot: self._time_of(_number(slot)),
            "getBlocks": self._blocks,
            "getGenesisHash": lambda: node.genesis_hash,
            "getHealth": lambda: "ok",
            "getLatestBlockhash": self._latest_blockhash,
            "getMultipleAccounts": self._multiple_accounts,
            "getRecentPrioritizationFees": lambda _accounts=None: [],
            "getSignatureStatuses": self._statuses,
            "getSignaturesForAddress": self._signatures,
            "getSlot": self._slot,
            "getTransaction": self._transaction,
            "getVersion": lambda: {"solana-core": VERSION, "feature-set": 0},
            "isBlockhashValid": self._is_blockhash_valid,
        }
        writing: Methods = {
            "getMinimumBalanceForRentExemption": self._rent_exemption,
            "requestAirdrop": self._airdrop,
            "sendTransaction": self._send,
            "simulateTransaction": self._simulate,
        }
        self._methods: Methods = reading if read_only else {**reading, **writing}

    def answer(self, request: Any) -> Any:
        """Answer a parsed request or batch of requests; never raises."""
        with self._node.lock:
            return answer(self._methods, request)

    def _slot(self, options: Any = None) -> int:
        _check_level(_options(options))
        return self._node.head().slot

    def _account_info(self, key: Any, options: Any = None) -> dict[str, Any]:
        _check_encoding(_options(options))
        return self._in_context(_account(self._store.account(_key(key))))

    def _multiple_accounts(self, keys: Any, options: Any = None) -> dict[str, Any]:
        _check_encoding(_options(options))
        if not isinstance(keys, list) or len(keys) > MAX_ACCOUNTS:
            raise RpcError(INVALID_PARAMS, f"at most {MAX_ACCOUNTS} accounts are asked for at once")
        return self._in_context([_account(self._store.account(_key(key))) for key in keys])

    def _balance(self, key: Any, options: Any = None) -> dict[str, Any]:
        _check_level(_options(options))
        account = self._store.account(_key(key))
        return self._in_context(0 if account is None else account.lamports)

    def _latest_blockhash(self, options: Any = None) -> dict[str, Any]:
        _check_level(_options(options))
        head = self._node.head()
        return self._in_context(
            {"blockhash": head.hash, "lastValidBlockHeight": head.slot + VALID_BLOCKS}
        )

    def _is_blockhash_valid(self, blockhash: Any, options: Any = None) -> dict[str, Any]:
        _check_level(_options(options))
        return self._in_context(self._node.is_recent(_blockhash(blockhash)))

    def _block(self, slot: Any, options: Any = None) -> dict[str, Any]:
        wanted = _options(options)
        _check_level(wanted)
        details = wanted.get("transactionDetails", "full")
        if details not in ("none", "signatures"):
            raise RpcError(INVALID_PARAMS, "transactionDetails is none or signatures")
        block = self._store.block(_number(slot))
        if block is None:
            raise RpcError(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")
        shown: dict[str, Any] = {
            "blockhash": block.hash,
            "previousBlockhash": block.previous,
            "parentSlot": max(0, block.slot - 1),
            "blockHeight": block.slot,
            "blockTime": block.time,
        }
        if details == "signatures":
            shown["signatures"] = self._store.signatures_of(block.slot)
        return shown

    def _blocks(self, first: Any, last: Any = None, options: Any = None) -> list[int]:
        _check_level(_options(options))
        end = self._node.head().slot if last is None else _number(last)
        return self._store.slots(_number(first), end, MAX_SLOTS)

    def _transaction(self, signature: Any, options: Any = None) -> dict[str, Any] | None:
        wanted = _options(options)
        _check_encoding(wanted)
        found = self._store.transaction(_signature(signature))
        if found is None:
            return None
        return {
            "slot": found.slot,
            "blockTime": self._time_of(found.slot),
            "transaction": [base64.b64encode(found.raw).decode(), "base64"],
            "meta": json.loads(found.meta),
            "version": "legacy" if found.raw[1 + 64 * found.raw[0]] < 128 else 0,
        }

    def _statuses(self, signatures: Any, options: Any = None) -> dict[str, Any]:
        _options(options)
        if not isinstance(signatures, list) or len(signatures) > MAX_STATUSES:
            raise RpcError(INVALID_PARAMS, f"at most {MAX_STATUSES} signatures at once")
        found = [self._store.transaction(_signature(signature)) for signature in signatures]
        return self._in_context([None if each is None else _status(each) for each in found])

    def _signatures(self, key: Any, options: Any = None) -> list[dict[str, Any]]:
        wanted = _options(options)
        _check_level(wanted)
        limit = _number(wanted.get("limit", MAX_SIGNATURES))
        if not 1 <= limit <= MAX_SIGNATURES:
            raise RpcError(INVALID_PARAMS, f"the limit is 1 to {MAX_SIGNATURES}")
        before, until = self._slot_of(wanted.get("before")), self._slot_of(wanted.get("until"))
        newest = self._store.mentioning(
            _key(key), before=before, until=-1 if until is None else until, limit=limit
        )
        return [
            {
                "signature": each.signature,
                "slot": each.slot,
                "err": json.loads(each.meta)["err"],
                "memo": None,
                "blockTime": self._time_of(each.slot),
                "confirmationStatus": "finalized",
            }
            for each in newest
        ]

    def _rent_exemption(self, size: Any, options: Any = None) -> int:
        _check_level(_options(options))
        bytes_wanted = _number(size)
        if bytes_wanted > LARGEST_ACCOUNT_BYTES:
            raise RpcError(INVALID_PARAMS, f"accounts have at most {LARGEST_ACCOUNT_BYTES} bytes")
        return self._node.rent_exempt_lamports(bytes_wanted)

    def _airdrop(self, key: Any, lamports: Any, options: Any = None) -> str:
        _options(options)
        amount = _number(lamports)
        if amount > MAX_AIRDROP_LAMPORTS:
            raise RpcError(INVALID_PARAMS, f"at most {MAX_AIRDROP_LAMPORTS} lamports at once")
        return self._execute(signed_airdrop(self._node, Pubkey(_key(key)), amount))

    def _send(self, encoded: Any, options: Any = None) -> str:
        wanted = _options(options)
        _check_encoding(wanted)
        return self._execute(_decoded(encoded), preflight=wanted.get("skipPreflight") is not True)

    def _execute(self, transaction: Any, *, preflight: bool = True) -> str:
        try:
            return self._node.execute(transaction, preflight=preflight)
        except RefusedError as refusal:
            if not preflight:
                # A cluster takes it without a look, and nothing comes of it.
                return str(transaction.signatures[0])
            outcome = refusal.outcome
            raise RpcError(
                PREFLIGHT_FAILURE,
                f"Transaction simulation failed: {_words(outcome.error)}",
                _simulated(outcome),
            ) from refusal

    def _simulate(self, encoded: Any, options: Any = None) -> dict[str, Any]:
        wanted = _options(options)
        _check_encoding(wanted)
        transaction = _decoded(encoded)
        if wanted.get("sigVerify") is True and not all(transaction.verify_with_results()):
            return self._in_context(_simulated(Outcome("SignatureFailure", (), 0, 0)))
        replace = wanted.get("replaceRecentBlockhash") is True
        outcome = self._node.simulate(transaction, replace_hash=replace)
        return self._in_context(_simulated(outcome))

    def _time_of(self, slot: int) -> int | None:
        block = self._store.block(slot)
        return None if block is None else block.time

    def _slot_of(self, signature: Any) -> int | None:
        if signature is None:
            return None
        found = self._store.transaction(_signature(signature))
        return None if found is None else found.slot

    def _in_context(self, value: Any) -> dict[str, Any]:
        head: Block = self._node.head()
        return {"context": {"slot": head.slot, "apiVersion": VERSION}, "value": value}


def _account(account: StoredAccount | None) -> dict[str, Any] | None:
    if account is None:
        return None
    return {
        "lamports": account.lamports,
        "owner": str(Pubkey(account.owner)),
        "data": [base64.b64encode(account.data).decode(), "base64"],
        "executable": account.executable,
        "rentEpoch": 2**64 - 1,
        "space": len(account.data),
    }


def _status(transaction: StoredTransaction) -> dict[str, Any]:
    meta = json.loads(transaction.meta)
    return {
        "slot": transaction.slot,
        "confirmations": None,
        "err": meta["err"],
        "status": meta["status"],
        "confirmationStatus": "finalized",
    }


def _simulated(outcome: Outcome) -> dict[str, Any]:
    return {
        "err": outcome.error,
        "logs": list(outcome.logs),
        "unitsConsumed": outcome.units,
        "accounts": None,
        "returnData": None,
    }


def _words(error: Any) -> str:
    if isinstance(error, dict) and "InstructionError" in error:
        index, reason = error["InstructionError"]
        if isinstance(reason, dict) and "Custom" in reason:
            reason = f"custom program error: {reason['Custom']:#x}"
        return f"Error processing Instruction {index}: {reason}"
    return {
        "AlreadyProcessed": "This transaction has already been processed",
        "BlockhashNotFound": "Blockhash not found",
    }.get(str(error), str(error))


def _options(options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise RpcError(INVALID_PARAMS, "the options are an object")
    return options


def _check_level(options: dict[str, Any]) -> None:
    level = options.get("commitment", "finalized")
    if level not in _LEVELS:
        raise RpcError(INVALID_PARAMS, f"{str(level)[:40]!r} is not a level of commitment")


def _check_encoding(options: dict[str, Any]) -> None:
    _check_level(options)
    if options.get("encoding") != "base64":
        raise RpcError(INVALID_PARAMS, "the only encoding here is base64")


def _decoded(encoded: Any) -> Any:
    try:
        return transaction_from_base64(str(encoded))
    except (ValueError, TypeError) as error:
        raise RpcError(INVALID_PARAMS, f"failed to deserialize transaction: {error}") from error
    except Exception as error:
        # solders has errors of its own for each way in which bytes are no transaction.
        raise RpcError(INVALID_PARAMS, "failed to sanitize transaction") from error


def _key(value: Any) -> bytes:
    try:
        return bytes(Pubkey.from_string(str(value)))
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {str(value)[:60]!r} is no key") from error


def _signature(value: Any) -> str:
    try:
        return str(Signature.from_string(str(value)))
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {str(value)[:100]!r}") from error


def _blockhash(value: Any) -> str:
    try:
        return str(hash_of(str(value)))
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {str(value)[:60]!r}") from error


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise RpcError(INVALID_PARAMS, f"{str(value)[:40]!r} is not a number from 0")
    return value
