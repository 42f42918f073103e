"""What nodes sign: EIP-712 statements, and how a signature is checked.

Each statement is a frozen record whose fields are, in order, the fields of its EIP-712 type
(https://eips.ethereum.org/EIPS/eip-712). Signatures are 65 bytes ``r || s || v`` with
``s`` in the lower half of the group order and ``v`` 27 or 28, so that a statement has one
signature form only.
"""

from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from eth_keys.datatypes import Signature as KeySignature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as KeyValidationError
from pydantic import ConfigDict

from twopm_flower.errors import RecordError, SignatureError
from twopm_flower.records.fields import (
    Address,
    Digest,
    Record,
    Round,
    Signature,
    Uint32,
    Uint53,
    Uint64,
)
from twopm_flower.records.typed_data import domain_separator, struct_hash

DOMAIN_NAME = "twopm-flower"
DOMAIN_VERSION = "1"
Fields = dict[str, tuple[str, str]]
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Domain(Record):
    """The EIP-712 domain: which chain and contract a statement is for."""

    chain_id: Uint53
    verifying_contract: Address

    def typed(self) -> dict[str, Any]:
        """Return the domain as EIP-712 wants it."""
        return {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": self.chain_id,
            "verifyingContract": self.verifying_contract,
        }

    @property
    def separator(self) -> bytes:
        """The domain's 32-byte hash."""
        return domain_separator(DOMAIN_NAME, DOMAIN_VERSION, self.chain_id, self.verifying_contract)


class TypedDataSigner(Protocol):
    """What signing needs: an address, and a signature over EIP-712 typed data."""

    @property
    def address(self) -> str:
        """The signer's EIP-55 address."""
        ...

    def sign_typed_data(
        self,
        domain: dict[str, Any],
        types: dict[str, list[dict[str, str]]],
        primary_type: str,
        message: dict[str, Any],
    ) -> bytes:
        """Return the 65-byte signature."""
        ...


class Statement(Record):
    """Base of the statements: a record with an EIP-712 type.

    The class variable ``TYPES`` maps each field to its (EIP-712 name, Solidity type).
    """

    TYPES: ClassVar[Fields]

    def types(self) -> dict[str, list[dict[str, str]]]:
        """Return the EIP-712 type table, without the domain."""
        fields = [{"name": name, "type": kind} for name, kind in self.TYPES.values()]
        return {type(self).__name__: fields}

    def message(self) -> dict[str, Any]:
        """Return the EIP-712 message; digests become exactly 32 bytes."""
        out: dict[str, Any] = {}
        for field, (name, kind) in self.TYPES.items():
            value = getattr(self, field)
            if kind == "bytes32":
                out[name] = bytes.fromhex(value[2:])
            else:
                out[name] = list(value) if kind.endswith("[]") else value
        return out

    def signing_hash(self, domain: Domain) -> bytes:
        """Return the 32-byte EIP-712 digest that is signed."""
        values = (getattr(self, field) for field in self.TYPES)
        body = struct_hash(type(self).__name__, tuple(self.TYPES.values()), values)
        return keccak(b"\x19\x01" + domain.separator + body)


_TASK = {"task_id": ("taskId", "bytes32")}
_ROUND = {**_TASK, "round": ("round", "uint32")}
_ATTEMPT = {**_ROUND, "attempt": ("attempt", "uint32")}
_NODE = {"node": ("node", "address")}


class Registration(Statement):
    """A node's X25519 key, for the node registry."""

    TYPES: ClassVar[Fields] = {
        **_NODE,
        "sealing_key": ("sealingKey", "bytes32"),
        "nonce": ("nonce", "uint256"),
        "deadline": ("deadline", "uint256"),
    }
    node: Address
    sealing_key: Digest
    nonce: Uint53
    deadline: Uint53


class Departure(Statement):
    """A node leaves the node registry."""

    TYPES: ClassVar[Fields] = {
        **_NODE,
        "nonce": ("nonce", "uint256"),
        "deadline": ("deadline", "uint256"),
    }
    node: Address
    nonce: Uint53
    deadline: Uint53


class DataPublication(Statement):
    """A node commits to one version of a dataset, under a salt, for the data registry."""

    TYPES: ClassVar[Fields] = {
        **_NODE,
        "dataset": ("dataset", "bytes32"),
        "version": ("version", "uint32"),
        "commitment": ("commitment", "bytes32"),
        "samples": ("samples", "uint64"),
    }
    node: Address
    dataset: Digest
    version: Round
    commitment: Digest
    samples: Uint53


class Membership(Statement):
    """A node joins a task with a number of samples and a salted commitment to its data."""

    TYPES: ClassVar[Fields] = {
        **_TASK,
        "terms_digest": ("termsDigest", "bytes32"),
        **_NODE,
        "samples": ("samples", "uint64"),
        "data_commitment": ("dataCommitment", "bytes32"),
        "sealing_key": ("sealingKey", "bytes32"),
    }
    task_id: Digest
    terms_digest: Digest
    node: Address
    samples: Uint53
    data_commitment: Digest
    sealing_key: Digest


class KeyDeal(Statement):
    """The first member dealt this shared key, in these sealed boxes, to this roster."""

    TYPES: ClassVar[Fields] = {
        **_TASK,
        **_NODE,
        "roster_digest": ("rosterDigest", "bytes32"),
        "key_id": ("keyId", "bytes32"),
        "boxes_digest": ("boxesDigest", "bytes32"),
    }
    task_id: Digest
    node: Address
    roster_digest: Digest
    key_id: Digest
    boxes_digest: Digest


class ReaderKey(Statement):
    """A node's X25519 key for the shares of one attempt; its private half is deleted after it."""

    TYPES: ClassVar[Fields] = {
        **_ATTEMPT,
        **_NODE,
        "public_key": ("publicKey", "bytes32"),
    }
    task_id: Digest
    round: Round
    attempt: Round
    node: Address
    public_key: Digest


class UpdateStatement(Statement):
    """A node contributed this encrypted update, trained from this model in this setting.

    ``shares_root`` commits to the sealed shares of the key that it was encrypted with; it is
    zero where keys are not shared out.
    """

    TYPES: ClassVar[Fields] = {
        **_ATTEMPT,
        **_NODE,
        "terms_digest": ("termsDigest", "bytes32"),
        "roster_digest": ("rosterDigest", "bytes32"),
        "app_bundle": ("appBundle", "bytes32"),
        "config_digest": ("configDigest", "bytes32"),
        "previous_manifest": ("previousManifest", "bytes32"),
        "base_model": ("baseModel", "bytes32"),
        "key_id": ("keyId", "bytes32"),
        "parameters_id": ("parametersId", "bytes32"),
        "layout_digest": ("layoutDigest", "bytes32"),
        "update_digest": ("updateDigest", "bytes32"),
        "shares_root": ("sharesRoot", "bytes32"),
    }
    task_id: Digest
    round: Round
    attempt: Round
    node: Address
    terms_digest: Digest
    roster_digest: Digest
    app_bundle: Digest
    config_digest: Digest
    previous_manifest: Digest
    base_model: Digest
    key_id: Digest
    parameters_id: Digest
    layout_digest: Digest
    update_digest: Digest
    shares_root: Digest


class FingerprintStatement(Statement):
    """The fingerprints of a node's own ciphertext under the manifest's challenges."""

    TYPES: ClassVar[Fields] = {
        **_ATTEMPT,
        **_NODE,
        "manifest_digest": ("manifestDigest", "bytes32"),
        "fingerprints": ("fingerprints", "uint64[]"),
    }
    task_id: Digest
    round: Round
    attempt: Round
    node: Address
    manifest_digest: Digest
    fingerprints: tuple[Uint64, ...]


class OpeningStatement(Statement):
    """A node opened its share of the sum of the survivors' keys, sealed to the nodes."""

    TYPES: ClassVar[Fields] = {
        **_ATTEMPT,
        **_NODE,
        "manifest_digest": ("manifestDigest", "bytes32"),
        "opening_digest": ("openingDigest", "bytes32"),
    }
    task_id: Digest
    round: Round
    attempt: Round
    node: Address
    manifest_digest: Digest
    opening_digest: Digest


class EvaluationStatement(Statement):
    """A node's pairwise-masked evaluation counts; only the sum over all members opens.

    ``model_round`` is the round whose model was evaluated (0 is the initial model);
    ``manifest_digest`` names the exchange, and with it the set of nodes whose masks cancel.
    """

    TYPES: ClassVar[Fields] = {
        **_TASK,
        "model_round": ("modelRound", "uint32"),
        **_NODE,
        "manifest_digest": ("manifestDigest", "bytes32"),
        "closing": ("closing", "bool"),
        "masked": ("masked", "uint64[]"),
    }
    task_id: Digest
    model_round: Uint32
    node: Address
    manifest_digest: Digest
    closing: bool
    masked: tuple[Uint64, ...]


class ModelStatement(Statement):
    """The model and the metric sums that a node opened from a round's aggregate.

    Carries no node: all who opened the same sign the same digest, and a contract recovers
    each signer.
    """

    TYPES: ClassVar[Fields] = {
        **_ROUND,
        "manifest_digest": ("manifestDigest", "bytes32"),
        "model_digest": ("modelDigest", "bytes32"),
        "metrics_digest": ("metricsDigest", "bytes32"),
    }
    task_id: Digest
    round: Round
    manifest_digest: Digest
    model_digest: Digest
    metrics_digest: Digest


S = TypeVar("S", bound=Statement)


class Signed(Record, Generic[S]):
    """A statement, the node that claims it and the signature."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    node: Address
    statement: S
    signature: Signature

    def check(self, domain: Domain) -> S:
        """Return the statement if the claimed node signed it for `domain`.

        Raises
        ------
        SignatureError
            Not canonical, not by the claimed node, or naming another node inside.
        """
        named = getattr(self.statement, "node", self.node)
        what = type(self.statement).__name__
        if named != self.node:
            raise SignatureError(f"{what} names node {named}, but {self.node} claims it")
        signer = recover(self.statement.signing_hash(domain), self.signature)
        if signer != self.node:
            raise SignatureError(f"{what} of {self.node} is signed by {signer}")
        return self.statement


def signed_type(kind: type[S]) -> type[Signed[S]]:
    """Return the record type of signed statements of one kind."""
    return cast("type[Signed[S]]", Signed.__class_getitem__(kind))


def sign(statement: S, signer: TypedDataSigner, domain: Domain) -> Signed[S]:
    """Sign a statement and check the result, so that a faulty signer is noticed here."""
    raw = signer.sign_typed_data(
        domain.typed(), statement.types(), type(statement).__name__, statement.message()
    )
    signed = signed_type(type(statement))(
        node=signer.address, statement=statement, signature="0x" + raw.hex()
    )
    signed.check(domain)
    return signed


def recover(digest: bytes, signature: str) -> str:
    """Return the EIP-55 address that made a canonical signature over a 32-byte digest.

    Raises
    ------
    SignatureError
        Not 65 bytes, high ``s``, ``v`` other than 27 or 28, or no point on the curve.
    """
    raw = bytes.fromhex(signature[2:])
    if len(raw) != 65:
        raise SignatureError(f"signature is {len(raw)} bytes long, not 65")
    r, s, v = int.from_bytes(raw[:32]), int.from_bytes(raw[32:64]), raw[64]
    if v not in (27, 28) or s > HALF_ORDER:
        raise SignatureError("signature is not in its canonical form (low s, v 27 or 28)")
    try:
        key = KeySignature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, KeyValidationError, ValueError) as error:
        raise SignatureError(f"signature cannot be recovered: {error}") from error
    return str(key.to_checksum_address())


def parse_signed(kind: type[S], value: Any) -> Signed[S]:
    """Check a JSON value that claims to be a signed statement of one kind.

    Raises
    ------
    RecordError
        Not of this kind, or a field is missing, unknown or out of range.
    """
    if not isinstance(value, dict):
        raise RecordError(f"a signed {kind.__name__} is a JSON object, not {type(value).__name__}")
    return signed_type(kind).from_json(value)
