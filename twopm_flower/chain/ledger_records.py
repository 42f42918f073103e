"""What a ledger is made of: its genesis, and entries that chain, each signed twice.

The account that asked signed the action, and the ledger's operator signed the entry's digest,
which covers the digest of the entry before. All else about a ledger follows from its genesis.
"""

import secrets
from typing import ClassVar, Literal

from eth_utils.crypto import keccak

from twopm_flower.chain.ledger_actions import Action, AnyAction
from twopm_flower.errors import SignatureError
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.fields import Address, Digest, Record, Signature, Uint53, checksum_address
from twopm_flower.records.statements import (
    Domain,
    Fields,
    Statement,
    TypedDataSigner,
    recover,
)

FAMILY = "ledger"


class Genesis(Record):
    """Entry 0: what makes a ledger this one.

    Attributes
    ----------
    nonce : str
        Random.
    operator : str
        Address of whoever puts entries in order and signs them.
    time : int
        When it was made, in seconds since the epoch.
    """

    version: Literal[1] = 1
    nonce: Digest
    operator: Address
    time: Uint53

    @property
    def digest(self) -> str:
        """What pins the ledger."""
        return self.tagged("ledger/genesis/v1")

    def deployment(self) -> Deployment:
        """Return the deployment that follows from it.

        The chain id is 1 plus the first eight bytes of
        ``keccak256("twopm-flower/ledger/chain/v1" || digest)`` modulo 2^53 - 1; each registry's
        address is the last twenty bytes of
        ``keccak256("twopm-flower/ledger/<name>-registry/v1" || digest)``.
        """
        digest = bytes.fromhex(self.digest[2:])

        def derived(name: str) -> bytes:
            return keccak(f"twopm-flower/ledger/{name}/v1".encode() + digest)

        def registry(name: str) -> str:
            return checksum_address("0x" + derived(f"{name}-registry")[-20:].hex())

        return Deployment(
            family=FAMILY,
            chain_id=1 + int.from_bytes(derived("chain")[:8]) % (2**53 - 1),
            genesis_hash=self.digest,
            node_registry=registry("node"),
            task_registry=registry("task"),
            data_registry=registry("data"),
            receipt_registry=registry("receipt"),
        )


def new_genesis(operator: str, time: int) -> Genesis:
    """Return the genesis of a new ledger."""
    return Genesis(nonce="0x" + secrets.token_hex(32), operator=operator, time=time)


class SignedAction(Record):
    """An action and its author's signature."""

    action: AnyAction
    signature: Signature

    def check(self, deployment: Deployment) -> Action:
        """Return the action if its author signed it for this ledger.

        Raises
        ------
        SignatureError
            Somebody else signed it, or the author signed something else.
        """
        action = self.action
        signer = recover(action.signing_hash(action.domain(deployment)), self.signature)
        if signer != action.author:
            raise SignatureError(
                f"{action.function} of {action.author} is signed by {signer}, or for another ledger"
            )
        return action


def sign_action(action: AnyAction, signer: TypedDataSigner, deployment: Deployment) -> SignedAction:
    """Sign an action and check the result, so that a faulty signer is noticed here."""
    raw = _signature_of(action, signer, action.domain(deployment))
    signed = SignedAction(action=action, signature=raw)
    signed.check(deployment)
    return signed


class EntrySeal(Statement):
    """The operator's word that this is the ledger's entry with this number."""

    TYPES: ClassVar[Fields] = {
        "number": ("number", "uint64"),
        "entry_digest": ("entryDigest", "bytes32"),
    }
    number: Uint53
    entry_digest: Digest


class Entry(Record):
    """One entry.

    Attributes
    ----------
    number : int
        From 1, without gaps.
    previous : str
        Digest of the entry before; of the genesis for the first.
    time : int
        When it was made, in seconds since the epoch; never before the entry before.
    signed : SignedAction
        What it does.
    seal : str
        The operator's signature of the :class:`EntrySeal`.
    """

    number: Uint53
    previous: Digest
    time: Uint53
    signed: SignedAction
    seal: Signature

    @property
    def digest(self) -> str:
        """What the next entry and the seal refer to."""
        return entry_digest(self.number, self.previous, self.time, self.signed)

    def check_seal(self, operator: str, deployment: Deployment) -> None:
        """Check the operator's signature.

        Raises
        ------
        SignatureError
            It is by somebody else, or over another entry.
        """
        seal = EntrySeal(number=self.number, entry_digest=self.digest)
        signer = recover(seal.signing_hash(deployment.domain), self.seal)
        if signer != operator:
            raise SignatureError(
                f"entry {self.number} is sealed by {signer}, not by the operator {operator}"
            )


def entry_digest(number: int, previous: str, time: int, signed: SignedAction) -> str:
    """Return the digest of an entry: of all of it but the seal."""
    head = number.to_bytes(8) + bytes.fromhex(previous[2:]) + time.to_bytes(8)
    return tagged_digest("ledger/entry/v1", head, signed.to_bytes())


def seal_entry(
    number: int,
    previous: str,
    time: int,
    signed: SignedAction,
    *,
    operator: TypedDataSigner,
    deployment: Deployment,
) -> Entry:
    """Return the entry with the operator's seal."""
    seal = EntrySeal(number=number, entry_digest=entry_digest(number, previous, time, signed))
    signature = _signature_of(seal, operator, deployment.domain)
    return Entry(number=number, previous=previous, time=time, signed=signed, seal=signature)


def _signature_of(statement: Statement, signer: TypedDataSigner, domain: Domain) -> str:
    raw = signer.sign_typed_data(
        domain.typed(), statement.types(), type(statement).__name__, statement.message()
    )
    return "0x" + raw.hex()
