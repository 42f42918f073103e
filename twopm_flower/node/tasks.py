"""The tasks of a home: which there are, and which one a person means."""

import re
from dataclasses import dataclass
from pathlib import Path

from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import load_key_deal

_SHORTEST_PREFIX = 4


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


def resolve_task(home: Path, named: str | None) -> str:
    """Return the id of the task that a person means.

    Parameters
    ----------
    home : Path
    named : str or None
        An id or the first digits of one; None means the task of the settings, or the only one.

    Raises
    ------
    ConfigError
        None or several fit.
    """
    known = NodeHome(home).task_ids()
    named = named or load_settings(home).task
    return _one(named, known, home)


def resolve_run(home: Path, named: str | None) -> Path:
    """Return the folder of a run that this home coordinated; the latest one by default.

    Raises
    ------
    ConfigError
        None or several fit.
    """
    runs = home / "runs"
    bundles = sorted(runs.glob("*/bundle.json"), key=lambda file: file.stat().st_mtime)
    if named is None and bundles:
        return bundles[-1].parent
    known = tuple(file.parent.name for file in bundles)
    return runs / _one(named, known, home, what="run")


def resume(home: Path, task_id: str) -> str:
    """Let a node that stopped go on, and return why it had stopped.

    Raises
    ------
    ConfigError
        It had not stopped.
    """
    folder = NodeHome(home).task(task_id)
    with folder.locked():
        progress = folder.load_progress()
        if progress.halted is None:
            raise ConfigError(f"this node did not stop in task {task_id}")
        folder.save_progress(progress.changed(halted=None))
    return progress.halted


def _one(named: str | None, known: tuple[str, ...], home: Path, what: str = "task") -> str:
    if named is None:
        found = known
    else:
        digits = named.lower().removeprefix("0x")
        if not re.fullmatch(r"[0-9a-f]+", digits):
            raise RecordError(f"{named!r} is not the id of a {what}: it is hexadecimal")
        if len(digits) == 64:
            found = tuple(task for task in known if task == f"0x{digits}")
        else:
            enough = len(digits) >= _SHORTEST_PREFIX
            found = tuple(t for t in known if enough and t.startswith(f"0x{digits}"))
    if len(found) == 1:
        return found[0]
    called = "" if named is None else f" {named}"
    if not found:
        raise ConfigError(
            f"there is no {what}{called} in {home}",
            hint="Is TWOPM_HOME the right one? 'twopm task list' shows what is there.",
        )
    raise ConfigError(
        f"{len(found)} {what}s fit{called or ' (none was named)'}: {', '.join(found)}",
        hint="Name one by its first digits.",
    )
