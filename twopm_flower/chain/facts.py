"""What a chain tells, whatever chain it is.

Digests and task identifiers are ``0x`` and 64 lower-case hexadecimal digits, addresses are
EIP-55. A transaction's hash is what its chain finds it by: 64 hexadecimal digits, or 128 where
transactions are named by their signature.
"""

from dataclasses import dataclass
from typing import Literal

TaskPhase = Literal["open", "running", "finalised", "cancelled"]


@dataclass(frozen=True)
class Receipt:
    """What a mined transaction left behind.

    Attributes
    ----------
    transaction_hash : str
        Its hash.
    block_number : int
        The block it is in.
    gas_used : int
        What it cost, in gas.
    status : int
        1; failed transactions are raised, never returned.
    """

    transaction_hash: str
    block_number: int
    gas_used: int
    status: int


@dataclass(frozen=True)
class Inclusion:
    """Where a transaction stands that has got into a block.

    Attributes
    ----------
    transaction_hash : str
        Its hash.
    block_number, block_hash
        The block.
    succeeded : bool
        Whether it took effect.
    confirmations : int
        How many blocks there are from its own to the latest, both included.
    final : bool
        Whether the chain says that it can no longer be undone.
    """

    transaction_hash: str
    block_number: int
    block_hash: str
    succeeded: bool
    confirmations: int
    final: bool


@dataclass(frozen=True)
class ChainStatus:
    """How a chain is doing.

    Attributes
    ----------
    family : str
        Which backend speaks to it.
    endpoint : str
        Which endpoint answered.
    chain_id : int
    head_block, final_block : int
        The latest block, and the latest that can no longer be undone.
    head_time : int
        The latest block's time, in seconds since the epoch.
    account, balance
        The account that pays and what it has, in the chain's smallest unit, as far as there
        are any.
    """

    family: str
    endpoint: str
    chain_id: int
    head_block: int
    final_block: int
    head_time: int
    account: str | None = None
    balance: int | None = None


@dataclass(frozen=True)
class RegisteredNode:
    """A node on the register.

    Attributes
    ----------
    node : str
        Its address.
    sealing_key : str
        Its X25519 public key.
    """

    node: str
    sealing_key: str


@dataclass(frozen=True)
class DataCommitment:
    """One version of a node's salted commitment to a dataset.

    Attributes
    ----------
    node, dataset : str
        Whose, and which: a digest that names it.
    version : int
        From 1; a version is never replaced.
    commitment : str
        The salted commitment.
    samples : int
        How many samples it commits to.
    block_number, block_hash, transaction_hash
        Where it stands.
    """

    node: str
    dataset: str
    version: int
    commitment: str
    samples: int
    block_number: int
    block_hash: str
    transaction_hash: str


@dataclass(frozen=True)
class Attestation:
    """A quorum of a task's members signed the model of one round.

    Attributes
    ----------
    task_id : str
    round : int
    manifest_digest, model_digest, metrics_digest : str
        What was signed.
    signers : int
        How many members signed.
    block_number, block_hash, transaction_hash
        Where it stands.
    """

    task_id: str
    round: int
    manifest_digest: str
    model_digest: str
    metrics_digest: str
    signers: int
    block_number: int
    block_hash: str
    transaction_hash: str


@dataclass(frozen=True)
class ReceiptAnchor:
    """A batch of receipts that an issuer anchored.

    Attributes
    ----------
    issuer : str
        Address of the account.
    root : str
        Merkle root of the batch.
    count : int
        How many receipts it has.
    block_number, block_hash, transaction_hash
        Where it stands.
    """

    issuer: str
    root: str
    count: int
    block_number: int
    block_hash: str
    transaction_hash: str


EventName = Literal[
    "node_registered",
    "node_left",
    "data_published",
    "task_created",
    "member_joined",
    "task_started",
    "round_recorded",
    "model_attested",
    "task_finalised",
    "task_cancelled",
    "receipts_anchored",
]


@dataclass(frozen=True)
class ChainEvent:
    """Something that happened on the chain.

    Attributes
    ----------
    name : EventName
        What.
    values : dict of str to (str or int)
        Its fields, named like those of the facts of this module; digests and addresses are
        text.
    block_number, block_hash, transaction_hash
        Where it stands.
    index : int
        Its place among the events of its block, from 0.
    """

    name: EventName
    values: dict[str, str | int]
    block_number: int
    block_hash: str
    transaction_hash: str
    index: int


@dataclass(frozen=True)
class RoundRecord:
    """One record of a round, as the chain holds it.

    Attributes
    ----------
    task_id : str
        The task.
    round, attempt : int
        From 1; a later attempt supersedes an earlier one of the same round.
    manifest_digest, updates_root : str
        What was recorded.
    head : str
        The chained digest of all records up to this one.
    block_number, block_hash, transaction_hash
        Where it stands.
    gas_used : int or None
        What it cost, where the chain has gas and still tells.
    """

    task_id: str
    round: int
    attempt: int
    manifest_digest: str
    updates_root: str
    head: str
    block_number: int
    block_hash: str
    transaction_hash: str
    gas_used: int | None


@dataclass(frozen=True)
class Finalisation:
    """How a task ended: the model that a quorum of its members signed.

    Attributes
    ----------
    task_id, model_digest, metrics_digest : str
        What was signed.
    head : str
        The chained digest of all records.
    signers : int
        How many members signed.
    block_number, block_hash, transaction_hash
        Where it stands.
    """

    task_id: str
    model_digest: str
    metrics_digest: str
    head: str
    signers: int
    block_number: int
    block_hash: str
    transaction_hash: str


@dataclass(frozen=True)
class TaskState:
    """All that the chain stores of a task.

    Attributes
    ----------
    task_id, coordinator, terms_digest : str
        Which task, whose, under which terms.
    state : {"open", "running", "finalised", "cancelled"}
        Where it stands.
    rounds : int
        How many rounds it runs.
    last_round, last_attempt : int
        The last record; 0 before the first.
    head, roster_digest : str
        Chained digests of all records and of all memberships; zero before the first.
    members, min_contributors, quorum : int
        How many there are, are needed to start, and must sign the final model.
    max_samples : int
        The largest number of samples that a member may claim.
    model_digest : str or None
        The final model, once finalised.
    """

    task_id: str
    coordinator: str
    terms_digest: str
    state: TaskPhase
    rounds: int
    last_round: int
    last_attempt: int
    head: str
    roster_digest: str
    members: int
    min_contributors: int
    quorum: int
    max_samples: int
    model_digest: str | None


@dataclass(frozen=True)
class Member:
    """A node's membership of a task.

    Attributes
    ----------
    node : str
        Its address.
    samples : int
        How many samples it committed to.
    data_commitment : str
        Its salted commitment to them.
    sealing_key : str
        Its X25519 public key.
    index : int
        Its place in the roster, from 0.
    """

    node: str
    samples: int
    data_commitment: str
    sealing_key: str
    index: int
