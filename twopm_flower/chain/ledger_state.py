"""What a sequence of events adds up to: nodes, data, tasks, rounds, statements and receipts.

The events of any chain say enough to rebuild all that it stores; a ledger keeps nothing else.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from twopm_flower.chain.facts import (
    Attestation,
    ChainEvent,
    DataCommitment,
    Finalisation,
    Member,
    ReceiptAnchor,
    RegisteredNode,
    RoundRecord,
    TaskState,
)
from twopm_flower.records.digest import ZERO_DIGEST


@dataclass
class NodeRecord:
    """A node that was ever registered: its key, None once it left, and its next nonce."""

    sealing_key: str | None
    nonce: int


@dataclass
class TaskRecord:
    """A task and its history; `members` is in the order of joining."""

    state: TaskState
    members: dict[str, Member] = field(default_factory=dict)
    records: list[RoundRecord] = field(default_factory=list)
    attestations: list[Attestation] = field(default_factory=list)
    finalisation: Finalisation | None = None


@dataclass
class LedgerState:
    """All that was said up to some event.

    Attributes
    ----------
    nodes : dict of str to NodeRecord
        In the order of their first registration.
    data : dict of str to list of DataCommitment
        Each node's, oldest first.
    last_versions : dict of (str, str) to int
        By node and dataset.
    tasks : dict of str to TaskRecord
    tasks_created_by : dict of str to int
        How many tasks each coordinator created.
    anchors : dict of (str, str) to ReceiptAnchor
        By issuer and root.
    """

    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    data: dict[str, list[DataCommitment]] = field(default_factory=dict)
    last_versions: dict[tuple[str, str], int] = field(default_factory=dict)
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    tasks_created_by: dict[str, int] = field(default_factory=dict)
    anchors: dict[tuple[str, str], ReceiptAnchor] = field(default_factory=dict)

    def take(self, event: ChainEvent) -> None:
        """Go one event on; the event is believed."""
        getattr(self, f"_{event.name}")(event, event.values)

    def registered_nodes(self) -> tuple[RegisteredNode, ...]:
        """Return the nodes that are registered now."""
        return tuple(
            RegisteredNode(node, record.sealing_key)
            for node, record in self.nodes.items()
            if record.sealing_key is not None
        )

    def versions(self, node: str, dataset: str) -> int:
        """Return the last version of a node's dataset; 0 when there is none."""
        return self.last_versions.get((node, dataset), 0)

    def _node_registered(self, _: ChainEvent, values: dict[str, Any]) -> None:
        node = self.nodes.setdefault(values["node"], NodeRecord(None, 0))
        node.sealing_key, node.nonce = values["sealing_key"], values["nonce"] + 1

    def _node_left(self, _: ChainEvent, values: dict[str, Any]) -> None:
        node = self.nodes[values["node"]]
        node.sealing_key, node.nonce = None, values["nonce"] + 1

    def _data_published(self, event: ChainEvent, values: dict[str, Any]) -> None:
        commitment = DataCommitment(**values, **_place(event))
        self.data.setdefault(commitment.node, []).append(commitment)
        self.last_versions[commitment.node, commitment.dataset] = commitment.version

    def _task_created(self, _: ChainEvent, values: dict[str, Any]) -> None:
        coordinator = values["coordinator"]
        self.tasks_created_by[coordinator] = self.tasks_created_by.get(coordinator, 0) + 1
        self.tasks[values["task_id"]] = TaskRecord(
            TaskState(
                **values,
                state="open",
                last_round=0,
                last_attempt=0,
                head=ZERO_DIGEST,
                roster_digest=ZERO_DIGEST,
                members=0,
                model_digest=None,
            )
        )

    def _member_joined(self, _: ChainEvent, values: dict[str, Any]) -> None:
        task = self.tasks[values["task_id"]]
        member = Member(
            node=values["node"],
            samples=values["samples"],
            data_commitment=values["data_commitment"],
            sealing_key=values["sealing_key"],
            index=values["index"],
        )
        task.members[member.node] = member
        task.state = replace(
            task.state, members=len(task.members), roster_digest=values["roster_digest"]
        )

    def _task_started(self, _: ChainEvent, values: dict[str, Any]) -> None:
        task = self.tasks[values["task_id"]]
        task.state = replace(task.state, state="running")

    def _round_recorded(self, event: ChainEvent, values: dict[str, Any]) -> None:
        task = self.tasks[values["task_id"]]
        record = RoundRecord(**values, **_place(event), gas_used=None)
        task.records.append(record)
        task.state = replace(
            task.state, last_round=record.round, last_attempt=record.attempt, head=record.head
        )

    def _model_attested(self, event: ChainEvent, values: dict[str, Any]) -> None:
        attestation = Attestation(**values, **_place(event))
        self.tasks[attestation.task_id].attestations.append(attestation)

    def _task_finalised(self, event: ChainEvent, values: dict[str, Any]) -> None:
        task = self.tasks[values["task_id"]]
        task.finalisation = Finalisation(**values, **_place(event))
        task.state = replace(task.state, state="finalised", model_digest=values["model_digest"])

    def _task_cancelled(self, _: ChainEvent, values: dict[str, Any]) -> None:
        task = self.tasks[values["task_id"]]
        task.state = replace(task.state, state="cancelled")

    def _receipts_anchored(self, event: ChainEvent, values: dict[str, Any]) -> None:
        anchor = ReceiptAnchor(**values, **_place(event))
        self.anchors[anchor.issuer, anchor.root] = anchor


def _place(event: ChainEvent) -> dict[str, Any]:
    return {
        "block_number": event.block_number,
        "block_hash": event.block_hash,
        "transaction_hash": event.transaction_hash,
    }
