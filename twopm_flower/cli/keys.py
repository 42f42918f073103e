"""``twopm keys``: deal, accept and show the key that the nodes of a task share."""

from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Home, Json, fields, home_of, print_json, say
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.node.handed_over import DEAL, read_handed_over
from twopm_flower.node.membership import accept_key, deal_key
from twopm_flower.node.provision import identity_of, make_card
from twopm_flower.node.task_overview import overview
from twopm_flower.node.tasks import resolve_task
from twopm_flower.records.bundle import DealtKey

app = typer.Typer(no_args_is_help=True, help="Deal, accept and show the key of a task.")


@app.command(epilog="Example: twopm keys deal 0x3fa9 --out deal.json")
def deal(
    task: Annotated[str | None, typer.Argument(help="The task, or its first digits.")] = None,
    out: Annotated[Path, typer.Option(help="Where the sealed key goes.")] = Path("deal.json"),
    home: Home = None,
    json: Json = False,
) -> None:
    """Make the shared key and seal it to every member. The first member does this, once."""
    folder = home_of(home)
    dealt = deal_key(folder, resolve_task(folder, task))
    write_atomically(out, dealt.to_bytes())
    statement = dealt.deal.statement
    shown = {
        "task_id": statement.task_id,
        "key_id": statement.key_id,
        "boxes": len(dealt.boxes.boxes),
        "file": str(out),
    }
    if json:
        print_json(shown)
        return
    fields(shown)
    say("Hand the file to every member and to the coordinator: only members can open their box.")


@app.command(epilog="Example: twopm keys accept deal.json")
def accept(
    deal: Annotated[Path, typer.Argument(help="The file from the first member.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Open this node's box, after checking who sealed it and for which roster."""
    key = accept_key(home_of(home), read_handed_over(deal, DEAL, DealtKey))
    if json:
        print_json({"key_id": key.key_id})
    else:
        say("[green]The key is accepted.[/] Compare its id with the other operators:")
        fields({"key id": key.key_id})


@app.command(epilog="Example: twopm keys show")
def show(home: Home = None, json: Json = False) -> None:
    """Show the public names of this home's keys; secrets are never shown."""
    folder = home_of(home)
    node = NodeHome(folder)
    tasks = {task: overview(folder, task).key_id for task in node.task_ids()}
    identity = identity_of(make_card(folder)) if node.exists else None
    if json:
        print_json(
            {
                "address": identity and identity.address,
                "sealing_key": identity and identity.sealing_key,
                "tasks": tasks,
            }
        )
        return
    if identity is not None:
        fields({"address": identity.address, "sealing key": identity.sealing_key})
    for task, key_id in tasks.items():
        fields({"task": task, "shared key": key_id or "none yet"})
