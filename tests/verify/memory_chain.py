"""A chain in memory: what the task registry would have stored, open to tampering."""

from dataclasses import dataclass, field, replace

from twopm_flower.chain.base import Finalisation, Member, RoundRecord, TaskState
from twopm_flower.errors import TransactionReverted
from twopm_flower.records.bundle import ChainRecord, Deployment
from twopm_flower.records.bundle import Finalisation as StatedFinalisation
from twopm_flower.records.chaining import next_head
from twopm_flower.records.digest import tagged_digest


def word(label):
    """A digest that stands for something the verifier never opens."""
    return tagged_digest("simulated/v1", label.encode())


@dataclass
class MemoryChain:
    """What a chain would answer; every field may be changed by a test."""

    pinned: Deployment
    state: TaskState
    roster: tuple[Member, ...]
    records: list[RoundRecord] = field(default_factory=list)
    final: Finalisation | None = None

    def check(self):
        """Always the pinned chain."""

    def deployment(self):
        return self.pinned

    def task(self, task_id):
        if task_id != self.state.task_id:
            raise TransactionReverted(f"TaskUnknown({task_id})")
        return self.state

    def members(self, task_id):
        return self.roster

    def round_records(self, task_id):
        return tuple(self.records)

    def finalisation(self, task_id):
        return self.final

    def record(self, manifest):
        """Record a manifest, as the contract would, and return what the bundle keeps of it."""
        number = len(self.records) + 1
        head = next_head(self.state.head, manifest)
        record = RoundRecord(
            task_id=manifest.task_id,
            round=manifest.round,
            attempt=manifest.attempt,
            manifest_digest=manifest.digest,
            updates_root=manifest.updates_root,
            head=head,
            block_number=100 + number,
            block_hash=word(f"block {number}"),
            transaction_hash=word(f"transaction {number}"),
            gas_used=50_000 + number,
        )
        self.records.append(record)
        self.state = replace(
            self.state, last_round=manifest.round, last_attempt=manifest.attempt, head=head
        )
        return ChainRecord(
            transaction_hash=record.transaction_hash,
            block_number=record.block_number,
            block_hash=record.block_hash,
            head=record.head,
            gas_used=record.gas_used,
        )

    def finalise(self, statement, signers):
        """Make a model final and return what the bundle keeps of it."""
        self.final = Finalisation(
            task_id=statement.task_id,
            model_digest=statement.model_digest,
            metrics_digest=statement.metrics_digest,
            head=self.state.head,
            signers=signers,
            block_number=500,
            block_hash=word("final block"),
            transaction_hash=word("final transaction"),
        )
        self.state = replace(self.state, state="finalised", model_digest=statement.model_digest)
        return StatedFinalisation(
            transaction_hash=self.final.transaction_hash,
            block_number=self.final.block_number,
            model_digest=statement.model_digest,
            metrics_digest=statement.metrics_digest,
        )
