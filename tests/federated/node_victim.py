"""One node handles one recorded order, and the kernel kills it at a given durable step.

A durable step is what changes the disk: a file that is synced, renamed, linked or deleted, and
a statement that writes to a database. The reply is the last one: before it nothing has left the
node, after it the reply has.
"""

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from federation import LyingGrid
from flwr.app import Message
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from tiny_app import RUN_CONFIG, tiny_app

# Loaded for the first order otherwise, and this is imported before each victim is forked.
from twopm_flower.chain import evm_backend  # noqa: F401
from twopm_flower.privacy import one_time, tenseal_bfv  # noqa: F401

CALLS = ("fsync", "replace", "link", "unlink")
STATEMENTS = ("INSERT", "COMMIT")


class DurableSteps:
    """Counts this process's durable steps and kills it in place of one of them.

    Parameters
    ----------
    die_at : int
        The number of the step, from 1; 0 for none.
    """

    def __init__(self, die_at: int) -> None:
        self.taken = 0
        self._die_at = die_at

    def step(self) -> None:
        self.taken += 1
        if self.taken == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **options: Any) -> Any:
            self.step()
            return call(*arguments, **options)

        return stepping

    def watch(self) -> None:
        steps = self

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql.startswith(STATEMENTS):
                    steps.step()
                return super().execute(sql, *values)

        connect = sqlite3.connect
        sqlite3.connect = lambda *a, **options: connect(*a, factory=Watched, **options)
        for name in CALLS:
            setattr(os, name, self.counted(getattr(os, name)))


def play(home: Path, index: int, order: Path, kind: str, reply: Path, die_at: int) -> None:
    """Handle the order in a file and leave the reply, or the reason of a refusal, in another."""
    content = recorddict_from_proto(RecordDictProto.FromString(order.read_bytes()))
    config = {"partition-id": index, "num-partitions": 4, "twopm-home": str(home)}
    grid = LyingGrid(tiny_app(), [config], dict(RUN_CONFIG))
    message = Message(content, dst_node_id=1, message_type=kind)
    message.metadata.__dict__["_message_id"] = "played"
    steps = DurableSteps(die_at)
    steps.watch()
    answer = grid.deliver(message)
    steps.step()
    assert answer is not None
    if answer.has_error():
        reply.with_suffix(".refused").write_text(answer.error.reason)
    else:
        reply.write_bytes(recorddict_to_proto(answer.content).SerializeToString())
    steps.step()
    reply.with_suffix(".steps").write_text(str(steps.taken))
