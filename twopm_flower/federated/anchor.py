"""A node's own look at the chain: whether it holds the manifests that the server showed."""

import time
from collections.abc import Callable
from typing import Protocol

from twopm_flower.chain.base import RoundRecord, TaskState
from twopm_flower.config import NodeSettings
from twopm_flower.errors import ChainUnavailable, ProtocolViolation, QuorumError
from twopm_flower.federated.progress import Pending


class RecordReader(Protocol):
    """What a node asks its chain endpoint during a run."""

    def round_record(self, task_id: str, round_number: int, attempt: int) -> RoundRecord | None:
        """Return a record, or None when there is none yet."""
        ...

    def task(self, task_id: str) -> TaskState:
        """Return the task, with the round and attempt recorded last."""
        ...


def unrecorded(
    task_id: str, pending: tuple[Pending, ...], reader: RecordReader
) -> tuple[Pending, ...]:
    """Return the manifests that are not on chain yet.

    An endpoint that does not answer counts as "not yet".

    Raises
    ------
    ProtocolViolation
        The chain holds another record than the server showed.
    """
    missing = []
    for entry in pending:
        try:
            record = reader.round_record(task_id, entry.round, entry.attempt)
            if record is None and _beyond(task_id, entry, reader):
                # Looked up again: it may have been recorded, and the next one, in between.
                record = reader.round_record(task_id, entry.round, entry.attempt)
                if record is None:
                    raise ProtocolViolation(
                        f"the chain goes on beyond round {entry.round}, attempt {entry.attempt}, "
                        "and holds no record of it; the server showed "
                        f"{entry.manifest_digest}"
                    )
        except ChainUnavailable:
            record = None
        if record is None:
            missing.append(entry)
            continue
        on_chain = (record.manifest_digest, record.updates_root)
        if on_chain != (entry.manifest_digest, entry.updates_root):
            raise ProtocolViolation(
                f"the chain records manifest {record.manifest_digest} for round {entry.round}, "
                f"attempt {entry.attempt}; the server showed {entry.manifest_digest}"
            )
    return tuple(missing)


def _beyond(task_id: str, entry: Pending, reader: RecordReader) -> bool:
    task = reader.task(task_id)
    return (task.last_round, task.last_attempt) > (entry.round, entry.attempt)


def await_anchor(
    task_id: str,
    pending: tuple[Pending, ...],
    reader: RecordReader,
    policy: NodeSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Pending, ...]:
    """Return what is still missing on chain, after waiting until the policy allows to go on.

    Raises
    ------
    ProtocolViolation
        The chain holds another record than the server showed.
    QuorumError
        Too many rounds are still not recorded after ``policy.anchor_wait_s``.
    """
    tolerated = 0 if policy.anchor == "strict" else policy.max_unrecorded_rounds
    deadline = clock() + policy.anchor_wait_s
    while True:
        missing = unrecorded(task_id, pending, reader)
        rounds = sorted({entry.round for entry in missing})
        if len(rounds) <= tolerated:
            return missing
        if clock() >= deadline:
            raise QuorumError(
                f"rounds {rounds} are not on chain after {policy.anchor_wait_s:.0f} s; "
                f"this node tolerates {tolerated}",
                hint="Ask the coordinator to run 'twopm chain deliver', or look at 'twopm doctor'.",
            )
        sleep(min(1.0, policy.anchor_wait_s / 10))
