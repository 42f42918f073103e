"""What can be asked of a ledger: each action is an EIP-712 statement of the account that asks.

An action has a type of its own, so that whoever signs it sees what it does and not a digest.
A random salt tells it from another with the same values, and after the entry ``expires_at`` it
takes effect no more.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from twopm_flower.records.bundle import Deployment
from twopm_flower.records.fields import Address, Digest, Signature, Uint32, Uint53
from twopm_flower.records.statements import Domain, Fields, Statement

MAX_REASON_BYTES = 256
MAX_SIGNATURES = 1024

Uint16 = Annotated[int, Field(ge=0, lt=2**16)]
# Beyond the limit of the rules, which say so by name; this one keeps an entry's size bounded.
Reason = Annotated[str, Field(max_length=4 * MAX_REASON_BYTES)]
Signatures = Annotated[tuple[Signature, ...], Field(max_length=MAX_SIGNATURES)]

_HEAD: Fields = {
    "author": ("author", "address"),
    "salt": ("salt", "bytes32"),
    "expires_at": ("expiresAt", "uint64"),
}
_NODE: Fields = {"node": ("node", "address")}
_TASK: Fields = {"task_id": ("taskId", "bytes32")}
_SIGNATURE: Fields = {"signature": ("signature", "bytes")}
_RECORD: Fields = {
    "manifest_digest": ("manifestDigest", "bytes32"),
    "updates_root": ("updatesRoot", "bytes32"),
}
_MODEL: Fields = {
    **_TASK,
    "previous_head": ("previousHead", "bytes32"),
    "attempt": ("attempt", "uint32"),
    **_RECORD,
    "model_digest": ("modelDigest", "bytes32"),
    "metrics_digest": ("metricsDigest", "bytes32"),
    "signatures": ("signatures", "bytes[]"),
}


class Action(Statement):
    """Base of the actions.

    Attributes
    ----------
    author : str
        The account that asks.
    salt : str
        Random.
    expires_at : int
        The last entry that it may become.
    """

    CONTRACT: ClassVar[Literal["node", "task", "data", "receipt"]] = "task"
    function: str
    author: Address
    salt: Digest
    expires_at: Uint53

    @property
    def digest(self) -> str:
        """What the ledger finds the action by; nothing is done twice under one digest."""
        return self.tagged("ledger/action/v1")

    def domain(self, deployment: Deployment) -> Domain:
        """Return the EIP-712 domain that it is signed for."""
        registry: str = getattr(deployment, f"{self.CONTRACT}_registry")
        return Domain(chain_id=deployment.chain_id, verifying_contract=registry)

    def message(self) -> dict[str, Any]:
        """Return the EIP-712 message."""
        out = super().message()
        for name, kind in self.TYPES.values():
            if kind == "bytes":
                out[name] = bytes.fromhex(out[name][2:])
            elif kind == "bytes[]":
                out[name] = [bytes.fromhex(element[2:]) for element in out[name]]
        return out


class RegisterNode(Action):
    """Relay a node's ``Registration``."""

    CONTRACT = "node"
    TYPES: ClassVar[Fields] = {
        **_HEAD,
        **_NODE,
        "sealing_key": ("sealingKey", "bytes32"),
        "deadline": ("deadline", "uint256"),
        **_SIGNATURE,
    }
    function: Literal["register"] = "register"
    node: Address
    sealing_key: Digest
    deadline: Uint53
    signature: Signature


class DeregisterNode(Action):
    """Relay a node's ``Departure``."""

    CONTRACT = "node"
    TYPES: ClassVar[Fields] = {
        **_HEAD,
        **_NODE,
        "deadline": ("deadline", "uint256"),
        **_SIGNATURE,
    }
    function: Literal["depart"] = "depart"
    node: Address
    deadline: Uint53
    signature: Signature


class PublishData(Action):
    """Relay a node's ``DataPublication``."""

    CONTRACT = "data"
    TYPES: ClassVar[Fields] = {
        **_HEAD,
        **_NODE,
        "dataset": ("dataset", "bytes32"),
        "version": ("version", "uint32"),
        "commitment": ("commitment", "bytes32"),
        "samples": ("samples", "uint64"),
        **_SIGNATURE,
    }
    function: Literal["publish"] = "publish"
    node: Address
    dataset: Digest
    version: Uint32
    commitment: Digest
    samples: Uint53
    signature: Signature


class CreateTask(Action):
    """Create a task."""

    TYPES: ClassVar[Fields] = {
        **_HEAD,
        "terms_digest": ("termsDigest", "bytes32"),
        "rounds": ("rounds", "uint32"),
        "min_contributors": ("minContributors", "uint16"),
        "quorum": ("quorum", "uint16"),
        "max_samples": ("maxSamples", "uint64"),
    }
    function: Literal["createTask"] = "createTask"
    terms_digest: Digest
    rounds: Uint32
    min_contributors: Uint16
    quorum: Uint16
    max_samples: Uint53


class JoinTask(Action):
    """Relay a node's ``Membership``."""

    TYPES: ClassVar[Fields] = {
        **_HEAD,
        **_TASK,
        **_NODE,
        "samples": ("samples", "uint64"),
        "data_commitment": ("dataCommitment", "bytes32"),
        "sealing_key": ("sealingKey", "bytes32"),
        **_SIGNATURE,
    }
    function: Literal["join"] = "join"
    task_id: Digest
    node: Address
    samples: Uint53
    data_commitment: Digest
    sealing_key: Digest
    signature: Signature


class StartTask(Action):
    """Close a task's roster and start its rounds."""

    TYPES: ClassVar[Fields] = {**_HEAD, **_TASK}
    function: Literal["start"] = "start"
    task_id: Digest


class CancelTask(Action):
    """End a task without a model."""

    TYPES: ClassVar[Fields] = {**_HEAD, **_TASK, "reason": ("reason", "string")}
    function: Literal["cancel"] = "cancel"
    task_id: Digest
    reason: Reason


class RecordRound(Action):
    """Record a round."""

    TYPES: ClassVar[Fields] = {
        **_HEAD,
        **_TASK,
        "round": ("round", "uint32"),
        "attempt": ("attempt", "uint32"),
        **_RECORD,
    }
    function: Literal["recordRound"] = "recordRound"
    task_id: Digest
    round: Uint32
    attempt: Uint32
    manifest_digest: Digest
    updates_root: Digest


class SignedModel(Action):
    """Base of what brings a model to the ledger that members signed."""

    task_id: Digest
    previous_head: Digest
    attempt: Uint32
    manifest_digest: Digest
    updates_root: Digest
    model_digest: Digest
    metrics_digest: Digest
    signatures: Signatures


class AttestModel(SignedModel):
    """State that a quorum signed the model of the last recorded round."""

    TYPES: ClassVar[Fields] = {**_HEAD, **_MODEL}
    function: Literal["attest"] = "attest"


class FinaliseTask(SignedModel):
    """End a task with its model."""

    TYPES: ClassVar[Fields] = {**_HEAD, **_MODEL}
    function: Literal["finalise"] = "finalise"


class AnchorReceipts(Action):
    """Anchor a batch of receipts."""

    CONTRACT = "receipt"
    TYPES: ClassVar[Fields] = {
        **_HEAD,
        "root": ("root", "bytes32"),
        "count": ("count", "uint32"),
    }
    function: Literal["anchor"] = "anchor"
    root: Digest
    count: Uint32


AnyAction = Annotated[
    RegisterNode
    | DeregisterNode
    | PublishData
    | CreateTask
    | JoinTask
    | StartTask
    | CancelTask
    | RecordRound
    | AttestModel
    | FinaliseTask
    | AnchorReceipts,
    Field(discriminator="function"),
]
"""Any of the actions."""
