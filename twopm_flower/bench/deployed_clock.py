"""How long mods take in deployed nodes, of which every message meets a process of its own."""

import json
import time
from collections import defaultdict
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

CLOCK_KEY = "clock"
"""Run configuration: the file that every node appends a line to for each message."""


class NodeClock:
    """Times the mods between `outer` and `inner`, the first and the last mod of an app."""

    def __init__(self) -> None:
        self._app_s = 0.0

    def outer(self, msg: Message, ctxt: Context, call_next: ClientAppCallable) -> Message:
        """Time everything, and write down what `inner` does not account for."""
        self._app_s = 0.0
        started = time.perf_counter()
        reply = call_next(msg, ctxt)
        seconds = time.perf_counter() - started - self._app_s
        line = {
            "node": int(ctxt.node_config.get("partition-id", 0)),
            "kind": msg.metadata.message_type,
            "app": self._app_s > 0,
            "mod_s": seconds,
        }
        # One short write in append mode: lines of several processes do not mix.
        with Path(str(ctxt.run_config[CLOCK_KEY])).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return reply

    def inner(self, msg: Message, ctxt: Context, call_next: ClientAppCallable) -> Message:
        """Time the app."""
        started = time.perf_counter()
        try:
            return call_next(msg, ctxt)
        finally:
            self._app_s += time.perf_counter() - started


def slowest_mods(file: Path) -> list[float]:
    """Return per round the seconds of the slowest node's mods, of both exchanges together.

    A server waits for the slowest node. The n-th message of a kind that reached a node's app
    belongs to round n.
    """
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for text in file.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["app"]:
            found[line["kind"], line["node"]].append(line["mod_s"])
    kinds = {kind for kind, _ in found}
    rounds = min((len(seconds) for seconds in found.values()), default=0)
    return [
        sum(max(s[index] for (k, _), s in found.items() if k == kind) for kind in kinds)
        for index in range(rounds)
    ]
