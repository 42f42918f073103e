"""Flower's replies, sorted into valid ones, errors and refusals; and the wait for nodes."""

import time
from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from twopm_flower.errors import QuorumError, RecordError
from twopm_flower.federated import wire
from twopm_flower.federated.exchange import Reply
from twopm_flower.federated.flower_internals import with_content
from twopm_flower.federated.mod import BEHIND
from twopm_flower.records.manifest import ExclusionReason
from twopm_flower.records.printable import printable

MAX_DETAIL = 300


def wait_for_nodes(grid: Grid, needed: int, wait_s: float) -> None:
    """Wait until enough nodes are connected.

    Raises
    ------
    QuorumError
        Too few after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    while (count := len(list(grid.get_node_ids()))) < needed:
        if time.monotonic() >= deadline:
            raise QuorumError(
                f"{count} nodes are connected after {wait_s:.0f} s, {needed} are needed",
                hint="Start more: flower-supernode --superlink HOST:PORT ... (docs/deploy.md).",
            )
        time.sleep(min(1.0, wait_s / 10))


def bare(message: Message) -> Message:
    """Return a reply without its update, for the base strategy's own logging and metrics."""
    content = RecordDict()
    content["arrays"] = ArrayRecord()
    content["metrics"] = MetricRecord({wire.SAMPLES: 1})
    return with_content(message, content)


def parse_reply(message: Message, parser: Callable[[RecordDict], Any]) -> Reply:
    """Return what a reply holds, or why it holds nothing; never raises for a bad one."""
    node = message.metadata.src_node_id
    if message.has_error():
        text = printable(message.error.reason or "no reason given")[:MAX_DETAIL]
        gone = message.error.code == ErrorCode.NODE_UNAVAILABLE
        reason: ExclusionReason = "unavailable" if gone else "error"
        return Reply(node, None, reason, text, behind=_behind(text))
    try:
        return Reply(node, parser(message.content))
    except RecordError as error:
        return Reply(node, None, "malformed", printable(error)[:MAX_DETAIL])


def _behind(text: str) -> int | None:
    if not text.startswith(BEHIND):
        return None
    digits = text.removeprefix(BEHIND).split(" ", 1)[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
