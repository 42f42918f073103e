"""``twopm node``: a node's keys, its card, and the nodes that it trusts."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import (
    Home,
    Json,
    Yes,
    confirm,
    fields,
    home_of,
    plain,
    print_json,
    say,
)
from twopm_flower.errors import ConfigError
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.federated.progress import is_forgotten
from twopm_flower.node import provision
from twopm_flower.node.chain_file import read_chain_file
from twopm_flower.node.forgetting import forget_task
from twopm_flower.node.membership import supernode_config
from twopm_flower.node.provision import NodeIdentity
from twopm_flower.node.task_overview import overview
from twopm_flower.node.tasks import resolve_task, resume

app = typer.Typer(no_args_is_help=True, help="A node's keys, its card, and whom it trusts.")


@app.command(epilog="Example: twopm node init --name alice --chain chain.toml")
def init(  # noqa: PLR0917  # one parameter for each option
    name: Annotated[str, typer.Option(help="What people call the node.")],
    chain: Annotated[Path, typer.Option(help="The chain.toml that the coordinator published.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the card goes.", show_default="NAME.card.json")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="Encrypt the identity key with this file's first line (0600)."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make this node's keys and its card. Doing it again never replaces a key."""
    folder = home_of(home)
    card = provision.init_node(
        folder, name=name, chain=read_chain_file(chain), password_file=password_file
    )
    file = out or Path(f"{name}.card.json")
    write_atomically(file, card.to_bytes())
    _show_identity(provision.identity_of(card), {"card": str(file), "home": str(folder)}, json)
    if not json:
        say("Hand the card to the other operators, and read the fingerprint out to them.")


@app.command(epilog="Example: twopm node card --out alice.card.json")
def card(
    out: Annotated[
        Path | None, typer.Option(help="Where it goes.", show_default="NAME.card.json")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write this node's card once more."""
    made = provision.make_card(home_of(home))
    file = out or Path(f"{made.name}.card.json")
    write_atomically(file, made.to_bytes())
    _show_identity(provision.identity_of(made), {"card": str(file)}, json)


@app.command(epilog="Example: twopm node show")
def show(home: Home = None, json: Json = False) -> None:
    """Show this node and the nodes that it trusts."""
    folder = home_of(home)
    own = provision.identity_of(provision.make_card(folder))
    peers = [provision.identity_of(card) for card in NodeHome(folder).peers().values()]
    if json:
        print_json({"node": asdict(own), "trusted": [asdict(peer) for peer in peers]})
        return
    _show_identity(own, {"home": str(folder)}, json)
    say(f"\n[bold]Trusted nodes: {len(peers)}[/]")
    for peer in peers:
        say("")
        _show_identity(peer, {}, json)


@app.command(epilog="Example: twopm node trust bob.card.json")
def trust(
    card: Annotated[Path, typer.Argument(help="The card that the other operator handed over.")],
    yes: Yes = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Allow another sealing key than the pinned one.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Pin another node's address and sealing key, after comparing the fingerprint."""
    folder, read = home_of(home), provision.read_card(card)
    provision.check_card(folder, read)
    identity = provision.identity_of(read)
    if not json:
        _show_identity(identity, {}, json)
    confirm("Did its operator read out the same fingerprint?", yes=yes)
    provision.trust(folder, read, replace=replace)
    if json:
        print_json(asdict(identity))
    else:
        say(f"[green]{plain(identity.name)} is trusted.[/]")


@app.command(epilog="Example: twopm node untrust bob")
def untrust(
    node: Annotated[str, typer.Argument(help="Its address or its name.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Forget a node. Rosters that were confirmed already stay as they are."""
    identity = provision.untrust(home_of(home), node)
    if json:
        print_json(asdict(identity))
    else:
        say(f"{plain(identity.name)} ({identity.address}) is no longer trusted.")


@app.command(
    epilog='Example: flower-supernode --superlink HOST:9092 --node-config "$(twopm node config)"'
)
def config(
    task: Annotated[str | None, typer.Argument(help="The task, or its first digits.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print the --node-config of this node's SuperNode."""
    folder = home_of(home)
    value = supernode_config(folder, resolve_task(folder, task))
    if json:
        print_json({"node_config": value})
    else:
        typer.echo(value)


@app.command(epilog="Example: twopm node status")
def status(home: Home = None, json: Json = False) -> None:
    """Show how far this node is in its tasks. Exit status 1 if it stopped in one."""
    folder = home_of(home)
    tasks = [overview(folder, task_id) for task_id in NodeHome(folder).task_ids()]
    if json:
        print_json([asdict(task) for task in tasks])
    for task in () if json else tasks:
        state = f"stopped: {task.halted}" if task.halted else "running or ready"
        state = str(task.halted) if is_forgotten(task.halted) else state
        fields(
            {
                "task": task.task_id,
                "title": task.title,
                "trust mode": task.trust_mode,
                "opened": f"{task.opened_round} of {task.rounds} rounds",
                "state": state,
            }
        )
    if not tasks and not json:
        say("This node takes part in no task.")
    if any(task.halted and not is_forgotten(task.halted) for task in tasks):
        raise typer.Exit(1)


@app.command("resume", epilog="Example: twopm node resume 0x3fa9")
def resume_(
    task: Annotated[str | None, typer.Argument(help="The task, or its first digits.")] = None,
    yes: Yes = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Let a node that stopped go on, after looking at why it did."""
    folder = home_of(home)
    task_id = resolve_task(folder, task)
    reason = overview(folder, task_id).halted
    if is_forgotten(reason):
        raise ConfigError(
            f"this node forgot task {task_id}: what it needs to take part is deleted",
            hint="Join a new task; it can start from the model of this one.",
        )
    if reason is not None and not json:
        say("[bold]This node stopped because another party broke the protocol:[/]")
        say(plain(reason))
    if reason is not None:
        confirm("Did you find out why, and is it safe to go on?", yes=yes)
    reason = resume(folder, task_id)
    if json:
        print_json({"task_id": task_id, "was_halted_because": reason})
    else:
        say("The node goes on with the next message.")


@app.command(epilog="Example: twopm node forget 0x3fa9")
def forget(
    task: Annotated[str, typer.Argument(help="The task, or its first digits.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Delete this node's keys of a task that is over, and take part in it no more."""
    folder = home_of(home)
    task_id = resolve_task(folder, task)
    deleted = forget_task(folder, task_id)
    if json:
        print_json({"task_id": task_id, "deleted": list(deleted)})
        return
    for name in deleted:
        say(f"deleted {plain(name)}")
    say(f"This node takes part in {task_id} no more; its model and records are still here.")
    say("Delete copies of the dealt key's file, too: with sealing.key it gives the task's key.")


def _show_identity(identity: NodeIdentity, more: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json({**asdict(identity), **more})
        return
    fields(
        {
            "name": identity.name,
            "address": identity.address,
            "sealing key": identity.sealing_key,
            "fingerprint": identity.fingerprint,
            **more,
        }
    )
