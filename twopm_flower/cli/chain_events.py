"""What ``twopm chain events`` shows of a stream of events."""

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from twopm_flower.chain.events import Delivered, EventStream, HasEvents
from twopm_flower.cli.output import plain, print_json, say, short
from twopm_flower.errors import ChainUnavailable

POLL_S = 1.0

_LINES = {
    "node_registered": ("registered", "{node}"),
    "node_left": ("left", "{node}"),
    "data_published": ("data", "{node}  version {version}"),
    "task_created": ("created", "task {task_id}  {rounds} rounds"),
    "member_joined": ("joined", "task {task_id}  {node}"),
    "task_started": ("started", "task {task_id}  {members} members"),
    "round_recorded": ("recorded", "task {task_id}  round {round}.{attempt}"),
    "model_attested": ("attested", "task {task_id}  round {round}  {signers} signers"),
    "task_finalised": ("finalised", "task {task_id}  model {model_digest}"),
    "task_cancelled": ("cancelled", "task {task_id}  {reason}"),
    "receipts_anchored": ("anchored", "root {root}  {count} receipts"),
}
_DIGESTS = {"task_id", "model_digest", "root"}


def show_stream(
    reader: HasEvents,
    *,
    task_id: str | None,
    cursor: Path | None,
    first_block: int,
    confirmations: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Print events in order, each once.

    Parameters
    ----------
    reader : ChainReader
        The chain.
    task_id : str, optional
        Show those of one task; of all otherwise.
    cursor : Path, optional
        The file that keeps the cursor; without it the stream starts at `first_block`.
    first_block : int
        Where a new stream starts.
    confirmations : int
        How many blocks an event must be in, its own included.
    follow : bool
        Go on until interrupted; as JSON, one event a line.
    as_json : bool
        JSON instead of a table.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "events.sqlite" if cursor is None else cursor
        stream = EventStream(reader, store, confirmations=confirmations, first_block=first_block)
        with stream:
            if follow:
                _follow(stream, task_id, as_json=as_json)
                return
            told = []
            for item in stream:
                if task_id in {None, item.event.values.get("task_id")}:
                    told.append(_as_json(item))
                    if not as_json:
                        say(event_line(item))
                stream.ack(item)
            if as_json:
                print_json({"events": told, "cursor": stream.cursor})
            else:
                say(f"Read up to block {stream.cursor}.")


def event_line(item: Delivered) -> str:
    """Return an event as a line of at most 80 columns, as markup."""
    event = item.event
    word, details = _LINES[event.name]
    shown = {
        name: short(str(value)) if name in _DIGESTS else str(value)[:42]
        for name, value in event.values.items()
    }
    word = "taken back" if item.retracted else word
    return f"{event.block_number:>9}  {word:<10}  {plain(details.format_map(shown))}"


def _follow(stream: EventStream, task_id: str | None, *, as_json: bool) -> None:
    while True:
        try:
            for item in stream:
                if task_id in {None, item.event.values.get("task_id")}:
                    typer.echo(json.dumps(_as_json(item))) if as_json else say(event_line(item))
                stream.ack(item)
        except ChainUnavailable as error:
            typer.echo(f"{error}; trying again", err=True)
        time.sleep(POLL_S)


def _as_json(item: Delivered) -> dict[str, Any]:
    return {**asdict(item.event), "identity": item.identity, "retracted": item.retracted}
