"""The few places where Flower offers no public way: all of them are here."""

import logging

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with the same metadata and other content."""
    changed: Message = Message(metadata=message.metadata, content=content)  # type: ignore[call-overload]  # metadata is "for internal use only"
    return changed


def log_as_flower() -> None:
    """Show this package's log where Flower shows its own, unless the host set up logging."""
    ours, theirs = logging.getLogger("twopm_flower"), logging.getLogger("flwr")
    if not ours.handlers and not logging.getLogger().handlers:
        ours.setLevel(theirs.level)
        for handler in theirs.handlers:
            ours.addHandler(handler)


def identify_process(run_id: int) -> None:
    """Give this process the identity that Flower's own launchers would: messages need one."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = 1
    TaskIdentity.task_id = 1
