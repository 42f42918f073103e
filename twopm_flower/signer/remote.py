"""A signer in another process: asks it, and believes nothing that it did not compare."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pydantic_core

from twopm_flower.errors import (
    RecordError,
    SignatureError,
    SignerError,
    SignerMismatch,
    SignerRefused,
)
from twopm_flower.records.fields import checksum_address
from twopm_flower.records.printable import printable
from twopm_flower.records.statements import recover
from twopm_flower.signer.ed25519 import is_signature
from twopm_flower.signer.solana_message import from_base58
from twopm_flower.signer.transaction import Transaction, decode_signed
from twopm_flower.signer.transport import Transport
from twopm_flower.signer.typed import TypedData, parts_as_request

_REFUSED_STATUS = 412


class _Remote:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._numbers = count(1)

    @property
    def where(self) -> str:
        """Where the signer is."""
        return self._transport.where

    def _call(self, method: str, parameters: list[Any]) -> Any:
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
        status, body = self._transport.post(json.dumps(request).encode())
        try:
            answered = pydantic_core.from_json(body, allow_inf_nan=False)
        except ValueError:
            answered = None
        if not isinstance(answered, dict) or not {"result", "error"} & answered.keys():
            raise SignerError(
                f"{self.where} answers {method} with HTTP {status} and no JSON-RPC",
                hint="Is this the address of a signer?",
            )
        if "error" in answered:
            error = answered["error"]
            said = error.get("message") if isinstance(error, dict) else error
            words = printable(said)[:1000]
            if status == _REFUSED_STATUS:
                signed = _signed_before(error)
                raise SignerRefused(
                    f"the signer refuses {method}: {words}",
                    hint="Its policy file says what it signs; its operator can change it."
                    if signed is None
                    else "Repeat the call that was signed first: its nonce waits for it.",
                    signed=signed,
                )
            raise SignerError(f"the signer at {self.where} fails at {method}: {words}")
        if answered.get("id") != number:
            raise SignerMismatch(f"the signer at {self.where} answers another request")
        return answered["result"]

    def _account(self, method: str, expected: str | None) -> str:
        accounts = self._call(method, [])
        if not isinstance(accounts, list) or not all(isinstance(a, str) for a in accounts):
            raise SignerError(f"the signer at {self.where} does not list its accounts")
        found = [a for a in accounts if expected is None or a.lower() == expected.lower()]
        if len(found) != 1:
            listed = printable(", ".join(accounts[:5]) or "nobody")[:300]
            raise SignerMismatch(
                f"the signer at {self.where} signs for {listed}, not for "
                f"{expected or 'one account'}",
                hint="Set the signer's address to the account that is meant.",
            )
        return str(found[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where!r})"


class RemoteSigner(_Remote):
    """A secp256k1 key that another process holds; satisfies the protocol ``Signer``.

    Threads may share it.

    Parameters
    ----------
    transport : Transport
    address : str, optional
        The account that it has to sign for; needed where a signer has several.

    Raises
    ------
    SignerUnavailable
        From every method: nobody answers.
    SignerRefused
        The signer's policy does not allow it.
    SignerMismatch
        What came back is not a signature of this account over exactly what was asked. Do not
        go on: the signer or the way to it is not what it should be.
    """

    def __init__(self, transport: Transport, *, address: str | None = None) -> None:
        super().__init__(transport)
        self._expected = None if address is None else checksum_address(address)
        self._address: str | None = None

    @property
    def address(self) -> str:
        """The EIP-55 address of the key; asked for once."""
        if self._address is None:
            found = self._account("eth_accounts", self._expected)
            try:
                self._address = checksum_address(found)
            except RecordError as error:
                raise SignerError(f"the signer at {self.where} names no address") from error
        return self._address

    def sign_transaction(self, fields: Mapping[str, Any]) -> bytes:
        """Sign a transaction; see :class:`~twopm_flower.signer.base.Signer`.

        The signer signs one transaction for a nonce. If it signed the same call for this nonce
        before, and the answer was lost, that one is returned: with the gas that it was given
        then, and with its fees unless the new ones are a bump of them.
        """
        wanted = Transaction.from_fields(fields)
        try:
            return self._signed(wanted)
        except SignerRefused as refused:
            settled = _settled(wanted, refused.signed)
            if settled is None:
                raise
        return self._signed(settled)

    def _signed(self, wanted: Transaction) -> bytes:
        request = {**wanted.to_fields(), "from": self.address}
        answered = self._call("eth_signTransaction", [request])
        raw = _raw(answered.get("raw") if isinstance(answered, dict) else answered, "transaction")
        try:
            signed, signer = decode_signed(raw)
        except RecordError as error:
            raise self._mismatch(f"a transaction that cannot be read: {error.message}") from error
        differences = wanted.differences(signed)
        if differences:
            raise self._mismatch(f"a transaction with another {', '.join(sorted(differences))}")
        if signer != self.address:
            raise self._mismatch(f"a transaction of {signer}, not of {self.address}")
        return raw

    def sign_typed_data(
        self,
        domain: dict[str, Any],
        types: dict[str, list[dict[str, str]]],
        primary_type: str,
        message: dict[str, Any],
    ) -> bytes:
        """Sign typed data; see :class:`~twopm_flower.signer.base.Signer`."""
        data = TypedData.read(parts_as_request(domain, types, primary_type, message))
        answered = self._call("eth_signTypedData", [self.address, data.to_json()])
        signature = _raw(answered, "signature")
        try:
            signer = recover(data.digest, "0x" + signature.hex())
        except SignatureError as error:
            raise self._mismatch(f"no canonical signature: {error.message}") from error
        if signer != self.address:
            raise self._mismatch(f"a signature over something else, or of {signer}")
        return signature

    def _mismatch(self, what: str) -> SignerMismatch:
        return SignerMismatch(
            f"the signer at {self.where} was asked for one thing and returned {what}",
            hint="Nothing was sent. Find out who answers there before you go on.",
        )


class RemoteSolanaSigner(_Remote):
    """An ed25519 key that another process holds; satisfies the protocol ``SolanaSigner``.

    Parameters
    ----------
    transport : Transport
    public_key : bytes, optional
        The 32-byte key that it has to sign for.

    Raises
    ------
    SignerUnavailable, SignerRefused, SignerMismatch
        As for :class:`RemoteSigner`.
    """

    def __init__(self, transport: Transport, *, public_key: bytes | None = None) -> None:
        super().__init__(transport)
        self._public_key = public_key
        self._checked = False

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public key; asked for once."""
        if not self._checked or self._public_key is None:
            try:
                found = from_base58(self._account("solana_accounts", None))
            except RecordError as error:
                raise SignerError(f"the signer at {self.where} names no ed25519 key") from error
            if self._public_key not in (None, found):
                raise SignerMismatch(
                    f"the signer at {self.where} holds another key than the one expected"
                )
            self._public_key, self._checked = found, True
        return self._public_key

    def sign_solana_message(self, message: bytes) -> bytes:
        """Sign a message; see :class:`~twopm_flower.signer.ed25519.SolanaSigner`."""
        answered = self._call("solana_signTransaction", [base64.b64encode(message).decode()])
        said = answered.get("signature") if isinstance(answered, dict) else answered
        try:
            signature = from_base58(said if isinstance(said, str) else "", size=64)
        except RecordError as error:
            raise SignerMismatch("the signer returned no ed25519 signature") from error
        if not is_signature(self.public_key, message, signature):
            raise SignerMismatch(
                f"the signer at {self.where} returned a signature over something else",
                hint="Nothing was sent. Find out who answers there before you go on.",
            )
        return signature


def _signed_before(error: Any) -> dict[str, object] | None:
    data = error.get("data") if isinstance(error, dict) else None
    signed = data.get("signed") if isinstance(data, dict) else None
    return signed if isinstance(signed, dict) else None


def _settled(wanted: Transaction, signed: dict[str, object] | None) -> Transaction | None:
    if signed is None:
        return None
    try:
        earlier = Transaction.from_fields(signed)
    except RecordError:
        return None
    fees = {"max_fee_per_gas", "max_priority_fee_per_gas"}
    same_call = wanted.differences(earlier) <= fees | {"gas"}
    # An estimate differs a little from block to block; much less gas would not do any more, and
    # much more, or much higher fees, nobody here has ever asked for.
    like_wanted = wanted.gas * 9 <= earlier.gas * 10 and earlier.gas <= 2 * wanted.gas
    if not same_call or not like_wanted:
        return None
    if wanted.differences(earlier) == {"gas"} or not wanted.outbids(earlier):
        return earlier if earlier.max_fee_per_gas <= 2 * wanted.max_fee_per_gas else None
    return replace(wanted, gas=earlier.gas)


def _raw(value: Any, what: str) -> bytes:
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise SignerMismatch(f"the signer returned no {what} in hexadecimal")
