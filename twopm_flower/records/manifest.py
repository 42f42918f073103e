"""The manifest of a round: whose updates were added, whose were not, and to what sum."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from twopm_flower.records.fields import Address, Digest, Record, Round, Uint53
from twopm_flower.records.merkle import MerkleTree, update_leaf
from twopm_flower.records.terms import TrustMode

ExclusionReason = Literal[
    "late",  # no reply within the time-out
    "unavailable",  # Flower says the node is gone
    "error",  # the node answered with an error
    "malformed",  # frame, length or range
    "binding",  # bound to another task, round, key, model or setting
    "signature",  # not signed by the node
]


class Survivor(Record):
    """A node whose update is in the sum."""

    node: Address
    update_digest: Digest


class Exclusion(Record):
    """A member whose update is not in the sum, and why."""

    node: Address
    reason: ExclusionReason
    detail: Annotated[str, Field(max_length=500)]


class RoundManifest(Record):
    """What the server commits to before any fingerprint is made and anything is decrypted.

    Survivors and exclusions are sorted by address and together are the roster.
    """

    version: Literal[1] = 1
    task_id: Digest
    round: Round
    attempt: Round
    previous_manifest: Digest
    terms_digest: Digest
    roster_digest: Digest
    trust_mode: TrustMode
    app_bundle: Digest
    config_digest: Digest
    base_model: Digest
    key_id: Digest
    parameters_id: Digest
    layout_digest: Digest
    survivors: tuple[Survivor, ...]
    exclusions: tuple[Exclusion, ...]
    samples: Uint53
    updates_root: Digest
    aggregate_digest: Digest

    @model_validator(mode="after")
    def _sorted(self) -> "RoundManifest":
        for label, entries in (("survivors", self.survivors), ("exclusions", self.exclusions)):
            keys = [entry.node.lower() for entry in entries]
            if keys != sorted(set(keys)):
                raise ValueError(f"{label} are not distinct and sorted by address")
        if {s.node for s in self.survivors} & {e.node for e in self.exclusions}:
            raise ValueError("a node both survives and is excluded")
        return self

    @property
    def digest(self) -> str:
        """The digest that is recorded on chain and that the next manifest names."""
        return self.tagged("manifest/v1")

    @property
    def nodes(self) -> tuple[str, ...]:
        """Addresses of the survivors, sorted."""
        return tuple(survivor.node for survivor in self.survivors)


def updates_root(task_id: str, round_: int, attempt: int, survivors: Sequence[Survivor]) -> str:
    """Return the merkle root over the survivors' update digests."""
    leaves = [
        update_leaf(task_id, round_, attempt, survivor.node, survivor.update_digest)
        for survivor in survivors
    ]
    return "0x" + MerkleTree.of(leaves).root.hex()


class OpenedMetrics(Record):
    """The sums of the metrics that travelled encrypted with the updates of a round."""

    task_id: Digest
    round: Round
    sums: dict[str, int]

    @property
    def digest(self) -> str:
        """The digest in ``ModelStatement.metrics_digest``."""
        return self.tagged("metrics/v1")
