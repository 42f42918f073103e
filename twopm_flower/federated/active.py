"""Which task the app behind the mod is working for: for apps that keep data by task."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from twopm_flower.federated.home import TaskFolder

_ACTIVE: ContextVar[TaskFolder | None] = ContextVar("twopm_active_task", default=None)


def active_task() -> TaskFolder | None:
    """Return this node's folder of the task that is being trained or evaluated, or None."""
    return _ACTIVE.get()


@contextmanager
def working_for(folder: TaskFolder) -> Iterator[None]:
    """Make `folder` the active task while the app runs."""
    token = _ACTIVE.set(folder)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
