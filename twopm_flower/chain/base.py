"""What the rest of the package asks of a chain, whatever chain it is, by capability.

A backend offers a :class:`ChainReader` and a :class:`ChainConnector`, which are nothing but
capabilities side by side. What is added later (proofs, rewards) is one more capability.

Digests and task identifiers are ``0x`` and 64 lower-case hexadecimal digits, addresses are
EIP-55, signatures are ``0x`` and 130 lower-case hexadecimal digits. On every chain nodes are
named by EIP-55 addresses and act by EIP-712 statements, which anybody relays and pays for.

Every method raises ChainUnavailable when nobody answers, WrongChain when somebody else does,
and every method that writes TransactionReverted when the chain's rules say no.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from twopm_flower.chain.calls import (
    AnchorCall,
    AttestCall,
    Call,
    FinaliseCall,
    FinalRound,
    Joining,
    RoundCall,
    SignedTransaction,
)
from twopm_flower.chain.facts import (
    Attestation,
    ChainEvent,
    ChainStatus,
    DataCommitment,
    Finalisation,
    Inclusion,
    Member,
    Receipt,
    ReceiptAnchor,
    RegisteredNode,
    RoundRecord,
    TaskPhase,
    TaskState,
)
from twopm_flower.records.bundle import Deployment

__all__ = [
    "AnchorCall",
    "AttestCall",
    "Attestation",
    "Call",
    "ChainConnector",
    "ChainEvent",
    "ChainReader",
    "ChainStatus",
    "DataCommitment",
    "FinalRound",
    "Finalisation",
    "FinaliseCall",
    "Inclusion",
    "Joining",
    "Member",
    "Receipt",
    "ReceiptAnchor",
    "RegisteredNode",
    "RoundCall",
    "RoundRecord",
    "SignedTransaction",
    "TaskPhase",
    "TaskState",
]


class StatusReading(Protocol):
    """Which chain it is, and how it is doing."""

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

    def status(self) -> ChainStatus:
        """Return how the chain is doing."""
        ...


class EventReading(Protocol):
    """Raw material of an event stream; :mod:`twopm_flower.chain.events` makes one of it."""

    def block_hash(self, number: int) -> str | None:
        """Return the hash of a block, or None where there is none with this number."""
        ...

    def events(self, first_block: int, last_block: int) -> tuple[ChainEvent, ...]:
        """Return all events of our contracts in these blocks, both included, in order."""
        ...


class IdentityReading(Protocol):
    """Who is registered."""

    def registered_key(self, node: str) -> str | None:
        """Return a node's sealing key, or None when it is not registered."""
        ...

    def registration_nonce(self, node: str) -> int:
        """Return the nonce that the node's next registration or departure has to carry."""
        ...

    def nodes(self) -> tuple[RegisteredNode, ...]:
        """Return the nodes on the register, in the order of their first registration."""
        ...


class Identity(IdentityReading, Protocol):
    """Registers nodes, gives them other keys, and lets them go."""

    def register_node(self, node: str, sealing_key: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Registration``; a registered node gets another key.

        `deadline` is in seconds since the epoch.
        """
        ...

    def deregister_node(self, node: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Departure``; its memberships remain."""
        ...


class DataReading(Protocol):
    """What nodes committed to before they trained on it."""

    def data_commitments(self, node: str, dataset: str | None = None) -> tuple[DataCommitment, ...]:
        """Return a node's commitments, oldest first; of one dataset, or of all."""
        ...


class DataCommitments(DataReading, Protocol):
    """Publishes salted commitments to datasets, version by version."""

    def publish_data(
        self,
        node: str,
        dataset: str,
        version: int,
        *,
        commitment: str,
        samples: int,
        signature: str,
    ) -> Receipt:
        """Relay a node's signed ``DataPublication``; versions count from 1 without gaps."""
        ...


class TaskReading(Protocol):
    """What tasks there are, and who takes part."""

    def task(self, task_id: str) -> TaskState:
        """Return a task; an unknown one raises TransactionReverted."""
        ...

    def members(self, task_id: str) -> tuple[Member, ...]:
        """Return the roster in the order of joining, checked against its digest."""
        ...


class Tasks(TaskReading, Protocol):
    """Creates tasks and moves them on; only a task's coordinator may."""

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

    def admit(self, task_id: str, joinings: Sequence[Joining]) -> tuple[Receipt, ...]:
        """Relay several nodes' ``Membership`` in the order given, as cheaply as the chain can.

        Nodes before one that is refused may have joined.
        """
        ...

    def start_task(self, task_id: str) -> Receipt:
        """Close the roster and start the rounds."""
        ...

    def cancel_task(self, task_id: str, reason: str) -> Receipt:
        """End a task without a model; `reason` has at most 256 bytes."""
        ...


class RoundReading(Protocol):
    """What was recorded of a task's rounds, survivors included (``updates_root``)."""

    def round_records(self, task_id: str) -> tuple[RoundRecord, ...]:
        """Return all records in order, superseded ones included, checked against the head."""
        ...

    def round_record(self, task_id: str, round_number: int, attempt: int) -> RoundRecord | None:
        """Return one record, or None."""
        ...


class Rounds(RoundReading, Protocol):
    """Records rounds."""

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


class StatementReading(Protocol):
    """What members stated together."""

    def attestations(self, task_id: str) -> tuple[Attestation, ...]:
        """Return what quorums attested of a task's rounds, oldest first."""
        ...

    def finalisation(self, task_id: str) -> Finalisation | None:
        """Return how the task was finalised, or None."""
        ...


class Statements(StatementReading, Protocol):
    """Brings what members signed to the chain."""

    def attest_model(
        self,
        task_id: str,
        last: FinalRound,
        model_digest: str,
        metrics_digest: str,
        signatures: Mapping[str, str],
    ) -> Attestation:
        """State that a quorum signed the model of the last recorded round; the task goes on.

        A round that is attested already with the same digests is success.

        Raises
        ------
        RecordConflict
            The round was attested with another model.
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


class ReceiptReading(Protocol):
    """Which batches of receipts were anchored."""

    def receipt_anchor(self, issuer: str, root: str) -> ReceiptAnchor | None:
        """Return where an issuer anchored a batch, or None."""
        ...


class Receipts(ReceiptReading, Protocol):
    """Anchors batches of receipts."""

    def anchor_receipts(self, root: str, count: int) -> ReceiptAnchor:
        """Anchor a batch by its Merkle root; one that is anchored already is success.

        Raises
        ------
        RecordConflict
            The same root is anchored with another count.
        """
        ...


class Delivering(Protocol):
    """The steps of getting a call onto the chain, for an outbox that survives a crash.

    An outbox stores what :meth:`sign_call` returns before it broadcasts, so that the same bytes
    are sent again after a restart.
    """

    @property
    def account(self) -> str:
        """The account that pays."""
        ...

    def next_nonce(self) -> int | None:
        """Return the nonce that the account's next transaction takes; None without nonces."""
        ...

    def sign_call(
        self,
        call: Call,
        *,
        nonce: int | None = None,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        """Sign what would do a call, without sending it.

        Parameters
        ----------
        call : Call
        nonce : int, optional
            The nonce to use, where there are nonces; the next one otherwise.
        replacing : SignedTransaction, optional
            A transaction of the same call and nonce that this one has to outbid.

        Raises
        ------
        TransactionReverted
            The chain's rules would refuse it.
        """
        ...

    def sign_filler(
        self, nonce: int, *, replacing: SignedTransaction | None = None
    ) -> SignedTransaction:
        """Sign a transaction that does nothing but use up a nonce which nothing else will."""
        ...

    def already_done(self, call: Call) -> str | None:
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
            False when it can never get into a block any more: its nonce was used by another,
            or its time is over.
        """
        ...

    def inclusion(self, transaction_hash: str) -> Inclusion | None:
        """Return where a transaction stands, or None while it is in no block."""
        ...

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until a transaction is in a block.

        Raises
        ------
        ChainUnavailable
            Not in time.
        """
        ...


class ChainReader(
    StatusReading,
    EventReading,
    IdentityReading,
    DataReading,
    TaskReading,
    RoundReading,
    StatementReading,
    ReceiptReading,
    Protocol,
):
    """All that can be learnt from a chain."""


class ChainConnector(
    ChainReader,
    Identity,
    DataCommitments,
    Tasks,
    Rounds,
    Statements,
    Receipts,
    Delivering,
    Protocol,
):
    """A reader that also writes, on behalf of one account.

    The account pays, and coordinates the tasks that it creates.
    """
