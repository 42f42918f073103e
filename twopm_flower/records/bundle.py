"""The bundle: one file that holds all a stranger needs to check a run."""

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from twopm_flower.records.fields import (
    Address,
    ChainFamily,
    Digest,
    Hex,
    Record,
    TransactionHash,
    Uint53,
)
from twopm_flower.records.manifest import OpenedMetrics, RoundManifest
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import (
    Domain,
    EvaluationStatement,
    FingerprintStatement,
    KeyDeal,
    Membership,
    ModelStatement,
    OpeningStatement,
    Registration,
    Signed,
    UpdateStatement,
)
from twopm_flower.records.terms import TaskTerms


def _canonical_base64(value: str) -> str:
    if base64.b64encode(base64.b64decode(value, validate=True)).decode() != value:
        raise ValueError("not canonical base64")
    return value


Base64 = Annotated[str, AfterValidator(_canonical_base64)]


class Deployment(Record):
    """Which chain and which contracts a run is anchored in: a reader believes no other.

    Attributes
    ----------
    family : str
        What kind of chain: the name of a chain backend, such as ``evm``.
    chain_id : int
        EIP-155 chain id, or what stands for it in statements on another kind of chain.
    genesis_hash : str
        Hash of block 0, because chain ids are not unique.
    program : str
        The program in its chain's own spelling, where contracts have no EIP-55 address of
        their own; empty otherwise.
    node_registry, task_registry, data_registry, receipt_registry : str
        EIP-55 addresses of the contracts, or what stands for them in statements.
    """

    family: ChainFamily = "evm"
    chain_id: Uint53
    genesis_hash: Digest
    program: Annotated[str, Field(max_length=100)] = ""
    node_registry: Address
    task_registry: Address
    data_registry: Address
    receipt_registry: Address

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of task statements."""
        return Domain(chain_id=self.chain_id, verifying_contract=self.task_registry)

    @property
    def registry_domain(self) -> Domain:
        """The EIP-712 domain of node registrations."""
        return Domain(chain_id=self.chain_id, verifying_contract=self.node_registry)

    @property
    def data_domain(self) -> Domain:
        """The EIP-712 domain of data publications."""
        return Domain(chain_id=self.chain_id, verifying_contract=self.data_registry)

    @property
    def receipt_domain(self) -> Domain:
        """The EIP-712 domain of prediction requests and receipts."""
        return Domain(chain_id=self.chain_id, verifying_contract=self.receipt_registry)


class ChainRecord(Record):
    """Where on chain a round is recorded, as the coordinator saw it."""

    transaction_hash: TransactionHash
    block_number: Uint53
    block_hash: Digest
    head: Digest
    gas_used: Uint53


class Finalisation(Record):
    """Where on chain the final model is recorded."""

    transaction_hash: TransactionHash
    block_number: Uint53
    model_digest: Digest
    metrics_digest: Digest


class SupersededAttempt(Record):
    """An attempt that was recorded but never opened; a later one took its place."""

    manifest: RoundManifest
    record: ChainRecord | None


class RoundBundle(Record):
    """One round: its manifest and all that was signed about it.

    ``openings`` are there in ``one-time-key`` mode only. A survivor that vanished after its
    update has no fingerprint there: its public ciphertext takes the place.
    """

    manifest: RoundManifest
    superseded: tuple[SupersededAttempt, ...]
    updates: tuple[Signed[UpdateStatement], ...]
    fingerprints: tuple[Signed[FingerprintStatement], ...]
    openings: tuple[Signed[OpeningStatement], ...]
    evaluations: tuple[Signed[EvaluationStatement], ...]
    models: tuple[Signed[ModelStatement], ...]
    metrics: OpenedMetrics | None
    record: ChainRecord | None


class RunBundle(Record):
    """A run: the task, its roster and every round.

    Attributes
    ----------
    aggregates : dict
        Aggregate digest to aggregate frame, base64.
    ciphertexts : dict
        Update digest to the frame of expanded residues, base64. Empty in a public bundle of
        a shared-key task, where whoever holds the key could read them.
    closing : tuple
        Masked evaluation of the final model.
    """

    version: Literal[1] = 1
    deployment: Deployment
    task_id: Digest
    terms: TaskTerms
    roster: Roster
    key_deal: Signed[KeyDeal] | None
    rounds: Annotated[tuple[RoundBundle, ...], Field(min_length=1)]
    closing: tuple[Signed[EvaluationStatement], ...]
    finalisation: Finalisation | None
    aggregates: dict[Digest, Base64]
    ciphertexts: dict[Digest, Base64]

    def artifact(self, digest: str) -> bytes | None:
        """Return the bytes of an aggregate or ciphertext frame, or None."""
        text = self.aggregates.get(digest) or self.ciphertexts.get(digest)
        return None if text is None else base64.b64decode(text)


class SealedBoxes(Record):
    """The sealed copies of a shared key, one for each member; public, useless without keys."""

    version: Literal[1] = 1
    backend: str
    boxes: dict[Address, Hex]

    @property
    def digest(self) -> str:
        """The digest in ``KeyDeal.boxes_digest``."""
        return self.tagged("boxes/v1")


class DealtKey(Record):
    """What the dealer hands out: the signed statement and the boxes."""

    deal: Signed[KeyDeal]
    boxes: SealedBoxes


class NodeCard(Record):
    """A node's public identity, to hand to other operators out of band.

    It carries the node's signed registration, so that a coordinator can relay it as it is.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=64)]
    registration: Signed[Registration]


class JoinRequest(Record):
    """What a node hands to the coordinator, who relays it and pays for it."""

    version: Literal[1] = 1
    registration: Signed[Registration]
    membership: Signed[Membership]
