"""The tasks of a home: which there are, and which one a person means."""

import re
from pathlib import Path

from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.federated.home import NodeHome

_SHORTEST_PREFIX = 4
_LISTED = 5


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
        raise ConfigError(f"there is no {what}{called} in {home}", hint=_what_there_is(known, what))
    raise ConfigError(
        f"{len(found)} {what}s fit{called or ' (none was named)'}: {', '.join(found)}",
        hint="Name one by its first digits.",
    )


def _what_there_is(known: tuple[str, ...], what: str) -> str:
    if not known:
        listed = "'twopm task list' shows what is there."
        return f"Is TWOPM_HOME the right one? {listed if what == 'task' else 'It holds no run.'}"
    # The latest run stands last. Ten digits are enough to name one, and to tell them apart.
    shown = ", ".join(name[:12] for name in known[-_LISTED:])
    more = f", and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"There {'is' if len(known) == 1 else 'are'} {shown}{more}."
