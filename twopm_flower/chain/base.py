"""What the rest of the package asks of a chain, whatever chain it is.

Digests and task identifiers are ``0x`` and 64 lower-case hexadecimal digits, addresses are
EIP-55, signatures are ``0x`` and 130 lower-case hexadecimal digits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from twopm_flower.chain.calls import FinaliseCall, FinalRound, RoundCall, SignedTransaction
from twopm_flower.records.bundle import Deployment

__all__ = [
    "ChainConnector",
    "ChainReader",
    "FinalRound",
    "Finalisation",
    "FinaliseCall",
    "Member",
    "Receipt",
    "RoundCall",
    "RoundRecord",
    "SignedTransaction",
    "TaskPhase",
    "TaskState",
]

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


class ChainReader(Protocol):
    """What can be learnt from a chain. Every method raises ChainUnavailable or WrongChain."""

    def deployment(self) -> Deployment:
        """Return the pinned deployment."""
        ...

    def check(self) -> None:
        """Check that the endpoint serves the pinned chain and contracts.

        Raises
        ------
        WrongChain
            Chain id, genesis or a contract's code differ.
        """
        ...

    def head_block(self) -> int:
        """Return the number of the latest block."""
        ...

    def task(self, task_id: str) -> TaskState:
        """Return a task; an unknown one raises TransactionReverted."""
        ...

    def members(self, task_id: str) -> tuple[Member, ...]:
        """Return the roster in the order of joining, checked against its digest."""
        ...

    def registered_key(self, node: str) -> str | None:
        """Return a node's sealing key, or None when it is not registered."""
        ...

    def registration_nonce(self, node: str) -> int:
        """Return the nonce that the node's next registration has to carry."""
        ...

    def round_records(self, task_id: str) -> tuple[RoundRecord, ...]:
        """Return all records in order, superseded ones included, checked against the head."""
        ...

    def round_record(self, task_id: str, round_number: int, attempt: int) -> RoundRecord | None:
        """Return one record, or None."""
        ...

    def finalisation(self, task_id: str) -> Finalisation | None:
        """Return how the task was finalised, or None."""
        ...


class ChainConnector(ChainReader, Protocol):
    """A reader that also writes, on behalf of one account.

    Besides the errors of a reader, every method raises TransactionReverted when the contract
    says no.
    """

    @property
    def account(self) -> str:
        """The account that pays, and that coordinates the tasks it creates."""
        ...

    def register_node(self, node: str, sealing_key: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Registration``; `deadline` is in seconds since the epoch."""
        ...

    def create_task(
        self,
        terms_digest: str,
        *,
        rounds: int,
        min_contributors: int,
        quorum: int,
        max_samples: int,
    ) -> tuple[str, Receipt]:
        """Create a task and return its identifier."""
        ...

    def join_task(
        self,
        task_id: str,
        node: str,
        *,
        samples: int,
        data_commitment: str,
        sealing_key: str,
        signature: str,
    ) -> Receipt:
        """Relay a node's signed ``Membership``."""
        ...

    def start_task(self, task_id: str) -> Receipt:
        """Close the roster and start the rounds."""
        ...

    def record_round(
        self,
        task_id: str,
        round_number: int,
        attempt: int,
        manifest_digest: str,
        updates_root: str,
    ) -> RoundRecord:
        """Record a round; one that is recorded already with the same digests is success.

        Raises
        ------
        RecordConflict
            This round and attempt are recorded with other digests.
        """
        ...

    def finalise_task(
        self,
        task_id: str,
        last: FinalRound,
        model_digest: str,
        metrics_digest: str,
        signatures: Mapping[str, str],
    ) -> Finalisation:
        """End a task with its model; a task ended with the same model is success.

        Raises
        ------
        RecordConflict
            The task was finalised with another model.
        """
        ...

    def cancel_task(self, task_id: str, reason: str) -> Receipt:
        """End a task without a model."""
        ...

    def sign_call(self, call: RoundCall | FinaliseCall) -> SignedTransaction:
        """Sign what would record a round or finalise a task, without sending it.

        Raises
        ------
        TransactionReverted
            The contract would refuse it.
        """
        ...

    def already_done(self, call: RoundCall | FinaliseCall) -> str | None:
        """Return the hash of the transaction that did exactly this, or None.

        Raises
        ------
        RecordConflict
            Something else stands in its place.
        """
        ...

    def broadcast(self, transaction: SignedTransaction) -> bool:
        """Send a signed transaction, or send it again.

        Returns
        -------
        bool
            False when it can never be mined any more, because its nonce was used by another.
        """
        ...

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until a transaction is mined.

        Raises
        ------
        ChainUnavailable
            Not mined in time.
        """
        ...
