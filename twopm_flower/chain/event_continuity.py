"""Whether an event follows from the one before it: what an endpoint hides breaks the chain."""

from dataclasses import dataclass
from typing import Any

from twopm_flower.chain.base import ChainEvent
from twopm_flower.records.chaining import roster_digest, round_head
from twopm_flower.records.digest import ZERO_DIGEST


@dataclass(frozen=True)
class _Joined:
    node: str
    samples: int
    data_commitment: str
    sealing_key: str


def continues(event: ChainEvent, previous: dict[str, Any] | None, *, from_start: bool) -> bool:
    """Tell whether an event's chained digest follows from its task's last one of that name.

    Parameters
    ----------
    event : ChainEvent
        Records of rounds and memberships carry a chained digest; others always follow.
    previous : dict or None
        What the last event of the same name and task said, or None where there was none.
    from_start : bool
        Whether all events since the chain's first block were seen.
    """
    if event.name not in {"round_recorded", "member_joined"}:
        return True
    if previous is None and not from_start:
        return True
    said: dict[str, Any] = event.values
    if event.name == "round_recorded":
        before = ZERO_DIGEST if previous is None else previous["head"]
        return bool(
            said["head"]
            == round_head(
                before,
                said["task_id"],
                said["round"],
                said["attempt"],
                manifest_digest=said["manifest_digest"],
                updates_root=said["updates_root"],
            )
        )
    before = ZERO_DIGEST if previous is None else previous["roster_digest"]
    joined = _Joined(said["node"], said["samples"], said["data_commitment"], said["sealing_key"])
    return bool(said["roster_digest"] == roster_digest([joined], start=before))
