"""``twopm task``: create, join, admit, start and confirm tasks."""

import logging
from collections.abc import Mapping
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
from twopm_flower.cli.task_input import (
    assignments,
    check_source,
    refuse_idle_colluders,
    refuse_to_overwrite,
)
from twopm_flower.cli.task_views import run_config_toml, show_roster, show_terms
from twopm_flower.config import load_settings
from twopm_flower.federated.chain_access import open_connector, open_reader
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.federated.submitted_app import submitted_app_digest
from twopm_flower.node import coordinate, membership
from twopm_flower.node.app_folder import write_app_folder
from twopm_flower.node.coordinate import Invitation
from twopm_flower.node.handed_over import DEAL, INVITATION, REQUEST, ROSTER, read_handed_over
from twopm_flower.node.local_data import DataSource, load_choice
from twopm_flower.node.task_overview import overview
from twopm_flower.node.tasks import resolve_task
from twopm_flower.node.terms import TaskSettings, build_student_terms, read_run_config
from twopm_flower.records.bundle import DealtKey, JoinRequest
from twopm_flower.records.roster import Roster

app = typer.Typer(no_args_is_help=True, help="Create, join, admit, start and confirm tasks.")

Task = Annotated[str | None, typer.Argument(help="The task, or its first digits.")]


@app.command(epilog="Example: twopm task create --app app --rounds 5 --subject mat --setup A")
def create(  # noqa: PLR0917  # one parameter for each option
    app_folder: Annotated[
        Path,
        typer.Option(
            "--app",
            help="The folder of the Flower app; the showcase is put there if it does not exist.",
        ),
    ] = Path("app"),
    title: Annotated[str | None, typer.Option(help="For people.")] = None,
    subject: Annotated[str | None, typer.Option(help="mat or por.")] = None,
    setup: Annotated[str | None, typer.Option(help="A, B or C: which grades are known.")] = None,
    target: Annotated[str | None, typer.Option(help="pass or improvement.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Planned rounds.")] = None,
    trust_mode: Annotated[
        str | None, typer.Option(help="shared-key, one-time-key or plaintext.")
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest change of one weight in one round.")
    ] = None,
    min_contributors: Annotated[
        int | None, typer.Option(help="Fewest updates in a sum that nodes open.")
    ] = None,
    colluders: Annotated[
        int | None,
        typer.Option(help="one-time-key: nodes that may collude with the server."),
    ] = None,
    quorum: Annotated[
        int | None,
        typer.Option(help="Fewest equal signed models.", show_default="--min-contributors"),
    ] = None,
    max_nodes: Annotated[int, typer.Option(help="Most members.")] = 10,
    max_samples: Annotated[
        int | None,
        typer.Option(help="Most training rows of a node.", show_default="the published file's"),
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option("--run-config", help="NAME=VALUE of the app's run configuration; repeat."),
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Allow made-up rows; everything will say so.")
    ] = False,
    initial_model: Annotated[
        Path | None,
        typer.Option(
            help="A safetensors file to start from, as 'twopm model export' writes it; "
            "it becomes public.",
            show_default="the app's own",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where the invitation goes; run-config.toml goes beside it.")
    ] = Path("invitation.json"),
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite an earlier task's two files.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put the terms of a task on chain and write the invitation for the nodes."""
    folder = home_of(home)
    connector = open_connector(load_settings(folder))
    settings_file = out.with_name("run-config.toml")
    if not force:
        refuse_to_overwrite(out, settings_file)
    named = {
        "subject": subject,
        "setup": setup,
        "target": target,
        "rounds": rounds,
        "trust-mode": trust_mode,
        "clip": clip,
        "min-contributors": min_contributors,
        "colluders": colluders,
    }
    changes = {name: value for name, value in named.items() if value is not None}
    changes = {**assignments(run_config or []), **changes}
    if not (app_folder / "pyproject.toml").exists():
        write_app_folder(app_folder)
    config = read_run_config(app_folder, changes)
    refuse_idle_colluders(changes.get("colluders"), config["trust-mode"])
    terms, initial = build_student_terms(
        config,
        TaskSettings(title, quorum, max_nodes, max_samples, synthetic, initial_model),
        app_bundle=submitted_app_digest(app_folder),
    )
    invitation = coordinate.create_task(folder, connector, terms, initial)
    write_atomically(out, invitation.to_bytes())
    write_atomically(settings_file, run_config_toml(terms.run_config).encode())
    shown = {
        "invitation": str(out),
        "app": str(app_folder),
        "run_config": str(settings_file),
        "initial_model": terms.initial_model,
    }
    if json:
        print_json({"task_id": invitation.task_id, **shown})
        return
    show_terms(invitation.task_id, terms)
    fields(_spaced(shown))
    say(f"Hand {plain(out)} to the nodes' operators.")


@app.command(epilog="Example: twopm task join invitation.json --data student-mat.csv")
def join(  # noqa: PLR0917  # one parameter for each option
    invitation: Annotated[Path, typer.Argument(help="The file from the coordinator.")],
    data: Annotated[
        Path | None, typer.Option(help="This node's rows: a file, or a folder with it.")
    ] = None,
    partition: Annotated[
        int | None, typer.Option(help="Which part, from 0, where nodes share one file.")
    ] = None,
    partitions: Annotated[int | None, typer.Option(help="How many parts there are.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Training rows, where only the app understands the file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the request goes.", show_default="NAME.join.json")
    ] = None,
    yes: Yes = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Agree to the terms of a task and commit to this node's rows."""
    folder = home_of(home)
    node = NodeHome(folder)
    invited = read_handed_over(invitation, INVITATION, Invitation)
    source = DataSource(data, partition, partitions, samples)
    check_source(source)
    if not json:
        show_terms(invited.task_id, invited.terms)
    confirm("Does this node agree to these terms?", yes=yes)
    request = membership.join_task(
        folder,
        invited,
        source,
        reader=open_reader(node.settings.require_chain()),
    )
    file = out or Path(f"{node.settings.node.name}.join.json")
    write_atomically(file, request.to_bytes())
    choice = load_choice(node.task(invited.task_id))
    shown = {
        "task_id": invited.task_id,
        "data": choice.label,
        "training_rows": choice.samples,
        "held_out_rows": choice.held_out,
        "commitment": choice.commitment,
        "request": str(file),
    }
    if json:
        print_json(shown)
        return
    fields(_spaced({name: value for name, value in shown.items() if name != "task_id"}))
    say("Hand the request to the coordinator.")


@app.command(epilog="Example: twopm task admit alice.join.json bob.join.json")
def admit(
    requests: Annotated[list[Path], typer.Argument(help="The files from the nodes.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Register nodes where needed and put their memberships on chain."""
    folder = home_of(home)
    connector = open_connector(load_settings(folder))
    read = [read_handed_over(file, REQUEST, JoinRequest) for file in requests]
    state = coordinate.admit(folder, connector, read)
    joined = {request.membership.node: request.membership.statement.samples for request in read}
    if json:
        print_json(
            [
                {"node": node, "samples": samples, "members": state.members}
                for node, samples in joined.items()
            ]
        )
        return
    for node, samples in joined.items():
        say(f"[green]{node}[/] joined with {samples} rows")
    say(f"{state.members} members now")


@app.command(epilog="Example: twopm task start --out roster.json")
def start(
    task: Task = None,
    out: Annotated[Path, typer.Option(help="Where the roster goes.")] = Path("roster.json"),
    home: Home = None,
    json: Json = False,
) -> None:
    """Freeze the roster on chain and write it for the nodes."""
    folder = home_of(home)
    connector = open_connector(load_settings(folder))
    task_id = resolve_task(folder, task)
    roster = coordinate.start_task(folder, connector, task_id)
    write_atomically(out, roster.to_bytes())
    show_roster(task_id, roster, NodeHome(folder).task(task_id).terms.quorum, str(out), json)
    if not json:
        say("Hand the roster to every node.")


@app.command("confirm", epilog="Example: twopm task confirm --roster roster.json")
def confirm_(
    task: Task = None,
    roster: Annotated[Path, typer.Option(help="The file from the coordinator.")] = Path(
        "roster.json"
    ),
    home: Home = None,
    json: Json = False,
) -> None:
    """Accept the frozen roster: all signed, all trusted here, the same as on chain."""
    folder = home_of(home)
    handed = read_handed_over(roster, ROSTER, Roster)
    task_id = resolve_task(folder, task)
    reader = open_reader(NodeHome(folder).settings.require_chain())
    # What it warns of in the log is shown in red below.
    membership.log.addHandler(logging.NullHandler())
    accepted = membership.confirm_task(folder, task_id, handed, reader=reader)
    terms = NodeHome(folder).task(task_id).terms
    show_roster(task_id, accepted, terms.quorum, str(roster), json)
    if json:
        return
    own = NodeHome(folder).signer.address
    if terms.trust_mode == "plaintext":
        say("[bold red]PLAINTEXT:[/] everybody will be able to read this node's updates.")
    elif accepted.dealer.node == own:
        say("This node is the first member: it deals the key with 'twopm keys deal'.")
    else:
        say("Get the deal from the first member, then: twopm keys accept deal.json")


@app.command(epilog="Example: twopm task key deal.json")
def key(
    deal: Annotated[Path, typer.Argument(help="The file from the first member.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Let the coordinator know which key the nodes use: its name, never the key."""
    dealt = read_handed_over(deal, DEAL, DealtKey)
    task_id = dealt.deal.statement.task_id
    signed = coordinate.keep_key_deal(home_of(home), task_id, dealt)
    shown = {"task_id": task_id, "key_id": signed.statement.key_id, "dealer": signed.node}
    if json:
        print_json(shown)
    else:
        fields(_spaced(shown))


@app.command("list", epilog="Example: twopm task list")
def list_(home: Home = None, json: Json = False) -> None:
    """List the tasks that this home knows."""
    folder = home_of(home)
    tasks = [overview(folder, task_id) for task_id in NodeHome(folder).task_ids()]
    if json:
        print_json([asdict(task) for task in tasks])
        return
    for task in tasks:
        members = "not started" if task.members is None else f"{task.members} members"
        say(f"[bold]{task.task_id}[/]")
        say(f"  {plain(task.title)} · {task.rounds} rounds · {task.trust_mode} · {members}")
    if not tasks:
        say("No tasks here.")


@app.command(epilog="Example: twopm task show 0x3fa9")
def show(task: Task = None, home: Home = None, json: Json = False) -> None:
    """Show the terms of a task."""
    folder = home_of(home)
    task_id = resolve_task(folder, task)
    terms = NodeHome(folder).task(task_id).terms
    if json:
        print_json({"task_id": task_id, "terms": terms.to_json()})
    else:
        show_terms(task_id, terms)


@app.command(epilog="Example: twopm task cancel 0x3fa9 --reason 'wrong subject'")
def cancel(
    task: Task = None,
    reason: Annotated[str, typer.Option(help="Is put on chain.")] = "cancelled",
    yes: Yes = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """End a task without a model. Nothing brings it back."""
    folder = home_of(home)
    connector = open_connector(load_settings(folder))
    task_id = resolve_task(folder, task)
    confirm(f"End task {task_id} for good?", yes=yes)
    receipt = connector.cancel_task(task_id, reason)
    shown = {"task_id": task_id, "transaction": receipt.transaction_hash}
    if json:
        print_json(shown)
    else:
        fields(_spaced(shown))
        say("Every node deletes its keys of it with: twopm node forget")


def _spaced(shown: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("_", " "): value for name, value in shown.items()}
