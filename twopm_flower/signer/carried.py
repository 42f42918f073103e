"""Files that are carried to a machine without network to be signed there, and back.

A request names everything that is signed, what it does in words, and when it expires; its
digest covers all of that. The words are for whoever carries the file: the machine that signs
makes its own from its own policy.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pydantic_core

from twopm_flower.errors import RecordError, SignerError, SignerMismatch, SignerRefused
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.fields import Address, Digest, Hex, Record
from twopm_flower.records.statements import recover
from twopm_flower.signer.judge import Judge
from twopm_flower.signer.service import SigningService
from twopm_flower.signer.transaction import Transaction, decode_signed
from twopm_flower.signer.typed import TypedData

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
CLIENT: Final = "offline"

Carried = TypeVar("Carried", bound=Record)


class SigningRequest(Record):
    """What is to be signed.

    Attributes
    ----------
    kind : str
        ``transaction-request/v1`` or ``typed-data-request/v1``.
    account : str
        Who has to sign.
    payload : dict
        The transaction, or the typed data, as JSON-RPC takes it.
    words : str
        What it does.
    prepared_at, expires_at : str
        UTC, ISO 8601.
    signing_hash : str
        What the signature is over.
    digest : str
        Of all the rest.
    """

    kind: Literal["transaction-request/v1", "typed-data-request/v1"]
    account: Address
    payload: dict[str, Any]
    words: str
    prepared_at: str
    expires_at: str
    signing_hash: Digest
    digest: Digest

    @property
    def content(self) -> Transaction | TypedData:
        """The transaction or the typed data."""
        if self.kind == "transaction-request/v1":
            return Transaction.from_fields(self.payload)
        return TypedData.read(self.payload)

    def check(self, *, now: datetime) -> Transaction | TypedData:
        """Return what is to be signed, if the file is whole and in time.

        Raises
        ------
        RecordError
            The digests do not fit the contents, or the contents are malformed.
        SignerError
            It has expired.
        """
        content = self.content
        if self.digest != _digest(self):
            raise RecordError(
                "the request was changed after it was prepared: its digest does not fit",
                hint="Prepare it again, and carry the file as it is.",
            )
        if self.signing_hash != _signing_hash(content):
            raise RecordError("the request's signing hash is not that of its contents")
        try:
            end = datetime.fromisoformat(self.expires_at)
            late = now > end
        except (ValueError, TypeError) as error:
            raise RecordError(f"{self.expires_at[:40]!r} is not a time") from error
        if late:
            raise SignerError(
                f"the request expired at {self.expires_at}",
                hint="Prepare it again: nonce and fees may have changed.",
            )
        return content


class SignedRequest(Record):
    """A request with what was signed for it.

    Attributes
    ----------
    kind : str
    request : SigningRequest
    result : str
        The raw transaction, or the 65 bytes of the signature, in hexadecimal.
    """

    kind: Literal["signed-request/v1"] = "signed-request/v1"
    request: SigningRequest
    result: Hex

    def check(self, *, now: datetime) -> Transaction | TypedData:
        """Return what was signed, if it is exactly what was asked for and by the account.

        Raises
        ------
        RecordError, SignerError
            As for :meth:`SigningRequest.check`.
        SignerMismatch
            Something else was signed, or by somebody else.
        """
        content = self.request.check(now=now)
        result = bytes.fromhex(self.result[2:])
        if isinstance(content, Transaction):
            signed, signer = decode_signed(result)
            differences = content.differences(signed)
            if differences:
                raise SignerMismatch(
                    f"the signed transaction has another {', '.join(sorted(differences))} than "
                    "the request"
                )
        else:
            signer = recover(content.digest, self.result)
        if signer != self.request.account:
            raise SignerMismatch(f"this is signed by {signer}, not by {self.request.account}")
        return content


def prepare(
    content: Transaction | TypedData, account: str, words: str, *, now: datetime, valid: timedelta
) -> SigningRequest:
    """Return a request to be carried.

    Parameters
    ----------
    content : Transaction or TypedData
    account : str
        Who has to sign.
    words : str
        What it does.
    now : datetime
    valid : timedelta
        How long it may be signed and submitted.
    """
    is_transaction = isinstance(content, Transaction)
    request = SigningRequest(
        kind="transaction-request/v1" if is_transaction else "typed-data-request/v1",
        account=account,
        payload=content.to_fields() if isinstance(content, Transaction) else content.to_json(),
        words=words,
        prepared_at=_text(now),
        expires_at=_text(now + valid),
        signing_hash=_signing_hash(content),
        digest="0x" + "00" * 32,
    )
    return request.model_copy(update={"digest": _digest(request)})


def explain(request: SigningRequest, judge: Judge, *, now: datetime) -> str:
    """Return what a request does in the words of a policy that allows it.

    Raises
    ------
    RecordError, SignerError
        As for :meth:`SigningRequest.check`.
    SignerRefused
        It is for another account, or not allowed.
    """
    content = request.check(now=now)
    if request.account != judge.account:
        raise SignerRefused(f"the request is for {request.account}; this key is {judge.account}")
    if isinstance(content, Transaction):
        return judge.transaction(content)
    return judge.typed_data(content)


def sign_request(
    request: SigningRequest, service: SigningService, *, now: datetime
) -> SignedRequest:
    """Sign a request by the service's policy, and check the result.

    Raises
    ------
    RecordError, SignerError
        As for :meth:`SigningRequest.check`; or the policy does not allow it.
    """
    request.check(now=now)
    if request.kind == "transaction-request/v1":
        fields = {**request.payload, "from": request.account}
        result = service.call("eth_signTransaction", [fields], client=CLIENT)
    else:
        parameters = [request.account, request.payload]
        result = service.call("eth_signTypedData", parameters, client=CLIENT)
    signed = SignedRequest(request=request, result=result)
    signed.check(now=now)
    return signed


def write_carried(path: Path, record: Record) -> None:
    """Write a file that a person can read."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=True)
    path.write_text(f"{text}\n", encoding="ascii")


def read_carried(path: Path, kind: type[Carried], writer: str) -> Carried:
    """Read a carried file.

    Parameters
    ----------
    path : Path
    kind : type
        `SigningRequest` or `SignedRequest`.
    writer : str
        The command that writes such files, for the error.

    Raises
    ------
    RecordError
        It cannot be read, or is something else.
    """
    hint = f"'{writer}' writes such files."
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    if len(data) > MAX_FILE_BYTES:
        raise RecordError(f"{path} is too large", hint=hint)
    try:
        return kind.from_json(pydantic_core.from_json(data, allow_inf_nan=False))
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {error}", hint=hint) from error
    except RecordError as error:
        raise RecordError(f"{path} is not such a file: {error.message}", hint=hint) from error


def _digest(request: SigningRequest) -> str:
    rest = request.model_copy(update={"digest": "0x" + "00" * 32})
    return tagged_digest("signing-request/v1", rest.to_bytes())


def _signing_hash(content: Transaction | TypedData) -> str:
    data = content.signing_hash if isinstance(content, Transaction) else content.digest
    return "0x" + data.hex()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
