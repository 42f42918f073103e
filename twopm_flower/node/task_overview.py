"""What a home knows of a task, at a glance."""

from dataclasses import dataclass
from pathlib import Path

from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import load_key_deal


@dataclass(frozen=True)
class TaskOverview:
    """What a home knows of a task.

    Attributes
    ----------
    task_id, title, trust_mode : str
    rounds : int
        Planned rounds.
    members : int or None
        How many are in the frozen roster; None before it is confirmed here.
    key_id : str or None
        The shared key that this home holds, or, in the coordinator's, knows the name of.
    opened_round : int
        The last round that this node opened.
    halted : str or None
        Why this node stopped.
    """

    task_id: str
    title: str
    trust_mode: str
    rounds: int
    members: int | None
    key_id: str | None
    opened_round: int
    halted: str | None


def overview(home: Path, task_id: str) -> TaskOverview:
    """Return what a home knows of a task."""
    folder = NodeHome(home).task(task_id)
    terms, progress = folder.terms, folder.load_progress()
    deal = load_key_deal(folder)
    key_id = None if deal is None else deal.statement.key_id
    if (folder.path / "shared.key").exists():
        key_id = folder.shared_key.key_id
    return TaskOverview(
        task_id=task_id,
        title=terms.title,
        trust_mode=terms.trust_mode,
        rounds=terms.rounds,
        members=len(folder.roster.members) if (folder.path / "roster.json").exists() else None,
        key_id=key_id,
        opened_round=progress.opened_round,
        halted=progress.halted,
    )
