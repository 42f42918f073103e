"""The few places where Flower offers no public way: all of them are here."""

import logging

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from twopm_flower.federated.harmless_log import HARMLESS_LOG


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with the same metadata and other content."""
    changed: Message = Message(metadata=message.metadata, content=content)  # type: ignore[call-overload]  # metadata is "for internal use only"
    return changed


def log_as_flower() -> None:
    """Show this package's log where Flower shows its own, unless the host set up logging.

    What it quotes of other parties is made harmless either way.
    """
    ours, theirs, host = (logging.getLogger(name) for name in ("twopm_flower", "flwr", None))
    if not ours.handlers and not host.handlers:
        ours.setLevel(theirs.level)
        for handler in theirs.handlers:
            ours.addHandler(handler)
    for handler in (*ours.handlers, *host.handlers):
        handler.addFilter(HARMLESS_LOG)


def identify_process(run_id: int) -> None:
    """Give this process the identity that Flower's own launchers would: messages need one."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = 1
    TaskIdentity.task_id = 1
