"""Everything that the contracts store, computed anew from their logs alone."""

from collections import defaultdict
from dataclasses import dataclass, field

from contract_calls import ZERO, hex32

from twopm_flower.records.chaining import roster_digest, round_head

OPEN, RUNNING, FINALISED, CANCELLED = 1, 2, 3, 4


@dataclass(frozen=True)
class Joined:
    """A member, as its event tells it."""

    node: str
    samples: int
    data_commitment: str
    sealing_key: str


@dataclass
class Task:
    """What ``getTask`` returns, under the names of its fields."""

    coordinator: str
    terms: bytes
    rounds: int
    min_contributors: int
    quorum: int
    max_samples: int
    state: int = OPEN
    last_round: int = 0
    last_attempt: int = 0
    head: bytes = ZERO
    model: bytes = ZERO
    members: list[Joined] = field(default_factory=list)

    @property
    def roster(self) -> bytes:
        return bytes.fromhex(roster_digest(self.members)[2:])

    def stored(self) -> tuple:
        """Return the fields in the order of the contract's struct."""
        return (
            self.coordinator,
            self.state,
            len(self.members),
            self.max_samples,
            self.min_contributors,
            self.quorum,
            self.rounds,
            self.last_round,
            self.last_attempt,
            self.head,
            self.terms,
            self.roster,
            self.model,
        )


@dataclass
class Replay:
    """The state of all four contracts after the events seen so far."""

    keys: dict[str, bytes] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    nonces: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    commitments: dict[tuple[str, bytes], list[bytes]] = field(
        default_factory=lambda: defaultdict(list)
    )
    tasks: dict[bytes, Task] = field(default_factory=dict)
    anchors: dict[tuple[str, bytes], tuple[int, int, int]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def take(self, event, block_time: int) -> None:
        """Apply one event."""
        self.seen.add(event["event"])
        values = event["args"]
        where = (int(event["blockNumber"]), block_time)
        getattr(self, f"_{event['event']}")(values, where)

    def samples_of(self, task_id: bytes, node: str) -> int:
        members = self.tasks[task_id].members
        return sum(member.samples for member in members if member.node == node)

    def created_by(self, coordinator: str) -> int:
        return sum(task.coordinator == coordinator for task in self.tasks.values())

    def _NodeRegistered(self, values, _) -> None:
        assert values["nonce"] == self.nonces[values["node"]]
        self.keys[values["node"]] = values["sealingKey"]
        self.nonces[values["node"]] += 1

    def _NodeLeft(self, values, _) -> None:
        assert values["nonce"] == self.nonces[values["node"]]
        self.keys[values["node"]] = ZERO
        self.nonces[values["node"]] += 1

    def _DataPublished(self, values, _) -> None:
        versions = self.commitments[values["node"], values["dataset"]]
        versions.append(values["commitment"])
        assert values["version"] == len(versions)
        assert values["samples"] > 0

    def _TaskCreated(self, values, _) -> None:
        assert values["taskId"] not in self.tasks
        self.tasks[values["taskId"]] = Task(
            values["coordinator"],
            values["termsDigest"],
            values["rounds"],
            values["minContributors"],
            values["quorum"],
            values["maxSamples"],
        )

    def _MemberJoined(self, values, _) -> None:
        task = self.tasks[values["taskId"]]
        assert values["index"] == len(task.members)
        task.members.append(
            Joined(
                values["node"],
                values["samples"],
                hex32(values["dataCommitment"]),
                hex32(values["sealingKey"]),
            )
        )
        assert values["rosterDigest"] == task.roster
        assert values["sealingKey"] == self.keys[values["node"]]

    def _TaskStarted(self, values, _) -> None:
        task = self.tasks[values["taskId"]]
        assert (values["rosterDigest"], values["members"]) == (task.roster, len(task.members))
        task.state = RUNNING

    def _RoundRecorded(self, values, _) -> None:
        task = self.tasks[values["taskId"]]
        task.last_round, task.last_attempt = values["round"], values["attempt"]
        head = round_head(
            hex32(task.head),
            hex32(values["taskId"]),
            values["round"],
            values["attempt"],
            manifest_digest=hex32(values["manifestDigest"]),
            updates_root=hex32(values["updatesRoot"]),
        )
        task.head = values["head"]
        assert hex32(task.head) == head

    def _ModelAttested(self, values, _) -> None:
        task = self.tasks[values["taskId"]]
        assert values["round"] == task.last_round
        assert task.quorum <= values["signers"] <= len(task.members)

    def _TaskFinalised(self, values, _) -> None:
        task = self.tasks[values["taskId"]]
        assert values["head"] == task.head
        task.state, task.model = FINALISED, values["modelDigest"]

    def _TaskCancelled(self, values, _) -> None:
        self.tasks[values["taskId"]].state = CANCELLED

    def _ReceiptsAnchored(self, values, where) -> None:
        assert (values["issuer"], values["root"]) not in self.anchors
        self.anchors[values["issuer"], values["root"]] = (*where, values["count"])
