"""The signing service: JSON-RPC methods in the dialect of Web3Signer, judged by a policy.

What is signed is decided here and nowhere else; sockets are in
:mod:`twopm_flower.signer.server`, and an air-gapped machine calls this without any.
"""

import base64
import binascii
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pydantic_core
from eth_utils.crypto import keccak

from twopm_flower import __version__
from twopm_flower.errors import (
    ConfigError,
    RecordError,
    SignerError,
    SignerRefused,
    SignerRequestError,
)
from twopm_flower.records.printable import printable
from twopm_flower.records.statements import recover
from twopm_flower.signer.audit import AuditLog
from twopm_flower.signer.ed25519 import SolanaSigner, is_signature
from twopm_flower.signer.judge import Judge
from twopm_flower.signer.key_holder import KeyHolder
from twopm_flower.signer.policy import Policy
from twopm_flower.signer.solana_message import base58, parse_message
from twopm_flower.signer.state import SignerState
from twopm_flower.signer.transaction import Transaction
from twopm_flower.signer.typed import TypedData

log = logging.getLogger(__name__)

NEVER: Final = {
    "eth_sign": "a bare hash or text can be neither shown nor judged (blind signing)",
    "personal_sign": "a bare text is no statement of ours",
    "account_signData": "bare data can be neither shown nor judged (blind signing)",
    "eth_sendTransaction": "this signer has no chain to send anything to",
    "account_new": "this signer makes no keys",
    "account_import": "this signer takes no keys",
    "account_export": "the key stays here",
}
MAX_WORDS: Final = 4000
NO_METHOD: Final = -32601
BAD_PARAMETERS: Final = -32602


class SigningService:
    """Signs what its policy allows, once for each nonce, and writes down what it did.

    Before a signature leaves, the audit log's entry and the nonce are on disk.

    Parameters
    ----------
    holder : KeyHolder or SolanaSigner
        The key, of the kind that the policy is for.
    policy : Policy
    state : SignerState
    audit : AuditLog
    tell : callable
        Takes a line for people about each request.
    clock : callable
        Returns the time in seconds since the epoch.

    Raises
    ------
    ConfigError
        The key is of another kind than the policy.
    """

    def __init__(
        self,
        holder: KeyHolder | SolanaSigner,
        policy: Policy,
        state: SignerState,
        audit: AuditLog,
        *,
        tell: Callable[[str], None] = log.info,
        clock: Callable[[], float] = time.time,
    ) -> None:
        kind = "ed25519" if hasattr(holder, "sign_solana_message") else "secp256k1"
        if kind != policy.key_kind:
            raise ConfigError(f"the key is {kind}, and the policy is for {policy.key_kind}")
        self._holder: Any = holder
        self.account = str(base58(holder.public_key) if kind == "ed25519" else holder.address)  # type: ignore[union-attr]  # told apart above
        self._policy, self._state, self._audit = policy, state, audit
        self._judge = Judge(policy, self.account)
        self._tell, self._clock = tell, clock
        self._lock = threading.Lock()
        self._asked: deque[float] = deque()
        self._methods: dict[str, Callable[[str, str, Any], Any]] = {
            "account_version": lambda *_: __version__,
            "health_status": lambda *_: "up",
        }
        if kind == "ed25519":
            self._methods |= {
                "solana_accounts": lambda *_: [self.account],
                "solana_signTransaction": self._solana,
            }
        else:
            self._methods |= {
                "eth_accounts": lambda *_: [self.account],
                "account_list": lambda *_: [self.account],
                "eth_signTransaction": lambda *a: self._transaction(*a)["raw"],
                "account_signTransaction": self._transaction,
                "eth_signTypedData": self._typed_data,
                "eth_signTypedData_v4": self._typed_data,
                "account_signTypedData": self._typed_data,
            }

    def call(self, method: str, parameters: Any, *, client: str) -> Any:
        """Do what a method says.

        Parameters
        ----------
        method : str
        parameters : list or dict
        client : str
            Who asks, for the log.

        Raises
        ------
        SignerRefused
            The policy does not allow it, or what is to be signed is malformed.
        SignerRequestError
            No such method, or parameters that it does not take.
        SignerError
            State or audit log cannot be written: nothing is signed any more.
        """
        with self._lock:
            self._throttle(method, client)
            if method in NEVER:
                self._refuse(method, client, f"{method} is never done: {NEVER[method]}")
            action = self._methods.get(method)
            if action is None:
                raise SignerRequestError(
                    f"there is no method {printable(method)[:60]!r}", code=NO_METHOD
                )
            try:
                return action(method, client, parameters)
            except (RecordError, SignerRefused) as error:
                signed = error.signed if isinstance(error, SignerRefused) else None
                self._refuse(method, client, error.message, signed)

    def started(self) -> None:
        """Write into the audit log that the signer starts."""
        words = f"{self.account} by a policy for {self._policy.key_kind}"
        with self._lock, self._state.writing():
            self._note("started", "", "", words)

    def _transaction(self, method: str, client: str, parameters: Any) -> dict[str, Any]:
        request = _only(parameters, dict)
        sender = request.get("from")
        if sender is not None and str(sender).lower() != self.account.lower():
            raise SignerRefused(f"this signer has no key for {str(sender)[:60]!r}")
        transaction = Transaction.from_fields(request)
        words = self._judge.transaction(transaction)
        digest = transaction.signing_hash
        with self._state.writing():
            new = self._state.reserve(
                transaction, self.account, self._policy.limits, now=self._clock()
            )
            # A repetition is bound by no rate of transactions: it names the entry that has the
            # fields by its digest, or asking again and again would fill the disk.
            fields = transaction.to_fields() if new else {}
            self._note("signed", method, client, words, digest.hex(), fields)
        raw = transaction.with_signature(self._sign(digest))
        return {
            "raw": "0x" + raw.hex(),
            "tx": {**transaction.to_fields(), "hash": "0x" + keccak(raw).hex()},
        }

    def _typed_data(self, method: str, client: str, parameters: Any) -> str:
        account, value = _two(parameters)
        if str(account).lower() != self.account.lower():
            raise SignerRefused(f"this signer has no key for {str(account)[:60]!r}")
        if isinstance(value, str):
            try:
                value = pydantic_core.from_json(value)
            except ValueError:
                raise _bad("the typed data are text that is not JSON") from None
        data = TypedData.read(value)
        words = self._judge.typed_data(data)
        with self._state.writing():
            self._state.count("statement", self._policy.limits, now=self._clock())
            self._note("signed", method, client, words, data.digest.hex(), data.to_json())
        return "0x" + self._sign(data.digest).hex()

    def _solana(self, method: str, client: str, parameters: Any) -> dict[str, str]:
        encoded = _only(parameters, str)
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise _bad("the message is not base 64") from None
        words = self._judge.solana(parse_message(data))
        with self._state.writing():
            self._state.count("transaction", self._policy.limits, now=self._clock())
            self._note("signed", method, client, words, data.hex())
        signature = bytes(self._holder.sign_solana_message(data))
        if not is_signature(self._holder.public_key, data, signature):
            raise SignerError("the key's holder returned no signature of its own key")
        return {"signature": base58(signature), "publicKey": self.account}

    def _sign(self, digest: bytes) -> bytes:
        signature = bytes(self._holder.unsafe_sign_digest(digest))
        if recover(digest, "0x" + signature.hex()) != self.account:
            raise SignerError("the key's holder returned no signature of its own key")
        return signature

    def _throttle(self, method: str, client: str) -> None:
        now, most = self._clock(), self._policy.limits.requests_per_minute
        while self._asked and not now - 60 < self._asked[0] <= now:
            self._asked.popleft()
        if len(self._asked) > most:
            raise SignerRefused(f"more than {most} requests in one minute")
        self._asked.append(now)
        if len(self._asked) > most:
            # The log tells this once: whoever floods the signer does not fill its disk.
            self._refuse(method, client, f"more than {most} requests in one minute")

    def _refuse(
        self, method: str, client: str, reason: str, signed: dict[str, Any] | None = None
    ) -> None:
        with self._state.writing():
            self._note("refused", printable(method)[:60], client, reason)
        raise SignerRefused(printable(reason)[:MAX_WORDS], signed=signed)

    def _note(  # noqa: PLR0917  # one parameter for each part of an entry
        self,
        decision: Any,
        method: str,
        client: str,
        words: str,
        digest: str = "",
        fields: dict[str, Any] | None = None,
    ) -> None:
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        words = printable(words)[:MAX_WORDS]
        head = self._audit.append(at, decision, method, client, words, digest, fields)
        self._state.set_head(head)
        self._tell(f"{at} {decision:<7} {words}" + (f" [0x{digest[:16]}]" if digest else ""))


def _only(parameters: Any, kind: type) -> Any:
    if isinstance(parameters, list) and len(parameters) == 1 and isinstance(parameters[0], kind):
        return parameters[0]
    raise _bad(f"params has to be a list of one {kind.__name__}")


def _two(parameters: Any) -> tuple[Any, Any]:
    if isinstance(parameters, list) and len(parameters) == 2:
        return parameters[0], parameters[1]
    raise _bad("params has to be a list of the account and the typed data")


def _bad(words: str) -> SignerRequestError:
    return SignerRequestError(words, code=BAD_PARAMETERS)
