"""Forgetting a task: what could open its sums is deleted, and the node takes part no more."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twopm_flower.chain.base import ChainReader, TaskPhase
from twopm_flower.errors import ConfigError, TwopmError
from twopm_flower.federated.home import NodeHome, TaskFolder, sync_folder
from twopm_flower.federated.progress import FORGOTTEN, is_forgotten

OLD_S = 24 * 3600
_ONE_TIME = ("reader-*.key", "share-*.bin")
# The dealer's deal.json has the task's key once more, sealed to its own sealing key.
_SECRET = ("shared.key", "deal.json", *_ONE_TIME, "opening-*.bin", "update-*")


@dataclass(frozen=True)
class LeftoverKeys:
    """What still opens shares of a task that is over, or seems to be.

    Attributes
    ----------
    task_id : str
    files : tuple of str
        Names of its reader keys and shares.
    ended : {"finalised", "cancelled"} or None
        How the chain says that the task ended; None where the chain could not be asked, and
        the newest of the files is older than a day.
    """

    task_id: str
    files: tuple[str, ...]
    ended: TaskPhase | None


def forget_task(home: Path, task_id: str) -> tuple[str, ...]:
    """Delete of a task what could open or sign again, and take part in it no more.

    Deleted are the task's key and its deal, reader keys, own shares, openings, kept updates
    and drafts. Terms, roster, models, the ledger and the guard stay. Waits until a message
    that is being worked on is done. Doing it again deletes what was missed.

    Parameters
    ----------
    home : Path
    task_id : str
        Whole, as :func:`twopm_flower.node.tasks.resolve_task` returns it.

    Returns
    -------
    tuple of str
        Names of the files that were deleted, without drafts.

    Raises
    ------
    ConfigError
        The node does not know the task; or a file cannot be deleted, and all others were.
    RecordError
        The ledger cannot be read; the files were deleted.
    """
    node = NodeHome(home)
    if task_id not in node.task_ids():
        raise ConfigError(
            f"there is no task {task_id} in {home}",
            hint="Is TWOPM_HOME the right one? 'twopm task list' shows what is there.",
        )
    folder = node.task(task_id)
    with folder.locked():
        try:
            _halt(folder)
        finally:
            # A ledger that cannot be read keeps the node out by itself; no reason to keep keys.
            deleted = _delete(folder)
    return deleted


def leftover_keys(
    home: Path, reader: ChainReader | None, *, now_s: float | None = None
) -> tuple[LeftoverKeys, ...]:
    """Return the tasks that are over and whose one-time keys are still here.

    Parameters
    ----------
    home : Path
    reader : ChainReader or None
        The chain to ask; None where none answers.
    now_s : float, optional
        Seconds since the epoch; the clock's by default.
    """
    node = NodeHome(home)
    kept = {task_id: dict(_ages(node.task(task_id))) for task_id in node.task_ids()}
    now_s = time.time() if now_s is None else now_s
    found = []
    for task_id, files in kept.items():
        if not files:
            continue
        phase, old = _phase(reader, task_id), now_s - max(files.values()) > OLD_S
        if phase in {"finalised", "cancelled"} or (phase is None and old):
            found.append(LeftoverKeys(task_id, tuple(sorted(files)), phase))
    return tuple(found)


def _halt(folder: TaskFolder) -> None:
    progress = folder.load_progress()
    if is_forgotten(progress.halted):
        return
    before = f"; it had stopped before: {progress.halted}" if progress.halted else ""
    folder.save_progress(progress.changed(halted=FORGOTTEN + before))


def _delete(folder: TaskFolder) -> tuple[str, ...]:
    deleted, kept = [], []
    for file in sorted({file for pattern in _SECRET for file in folder.path.glob(pattern)}):
        try:
            file.unlink()
            deleted.append(file.name)
        except OSError as error:
            kept.append(f"{file}: {error.strerror}")
    sync_folder(folder.path)
    if kept:
        raise ConfigError(
            f"{len(deleted)} files were deleted, these cannot be: {'; '.join(kept)}",
            hint="Let the owner of the home do it: the same command again deletes the rest.",
        )
    return tuple(deleted)


def _ages(folder: TaskFolder) -> Iterator[tuple[str, float]]:
    for pattern in _ONE_TIME:
        for file in folder.path.glob(pattern):
            # A node at work deletes them: asking is no reason to wait for its lock.
            with suppress(FileNotFoundError):
                yield file.name, file.stat().st_mtime


def _phase(reader: ChainReader | None, task_id: str) -> TaskPhase | None:
    try:
        return None if reader is None else reader.task(task_id).state
    except TwopmError:
        return None
