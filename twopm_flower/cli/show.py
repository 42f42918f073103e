"""``twopm show``: one round of a run."""

from typing import Annotated, Any

import typer

from twopm_flower.cli.output import (
    Home,
    Json,
    fields,
    home_of,
    plain,
    print_json,
    say,
    short,
    work_name,
)
from twopm_flower.cli.rounds import as_json, load_up_to_date
from twopm_flower.errors import ConfigError
from twopm_flower.inspect import rounds, updates

app = typer.Typer()


@app.command(epilog="Example: twopm show 3")
def show(
    round_: Annotated[int, typer.Argument(metavar="ROUND", help="Which round, from 1.")],
    run: Annotated[
        str | None,
        typer.Argument(help="A bundle, or a task or its first digits; else the latest run here."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show one round: its updates, who was left out and why, its record on chain."""
    bundle = load_up_to_date(home_of(home), run).bundle
    if not 1 <= round_ <= len(bundle.rounds):
        raise ConfigError(f"there is no round {round_}; the run has {len(bundle.rounds)}")
    entry = bundle.rounds[round_ - 1]
    table, members = rounds(bundle), updates(bundle)
    facts = as_json(table[table["round"] == round_])[0]
    sent = as_json(members[members["round"] == round_])
    if json:
        print_json({**facts, "updates": sent, "manifest": entry.manifest.to_json()})
        return
    record, work = entry.record, work_name(bundle.deployment.family)
    cost = {} if record is None or work is None else {work: f"{record.gas_used:,}"}
    fields(
        {
            "task": bundle.task_id,
            "round": f"{round_} of {bundle.terms.rounds}, attempt {facts['attempt']}",
            "accuracy": "–" if facts["accuracy"] is None else f"{facts['accuracy']:.1%}",
            "loss": "–" if facts["loss"] is None else f"{facts['loss']:.4f}",
            "training": _training(facts),
            "manifest": facts["manifest"],
            "sum": entry.manifest.aggregate_digest,
            "merkle root": entry.manifest.updates_root,
            "model": facts["model"] or "not opened yet",
            "signed by": f"{len(entry.models)} nodes",
            "transaction": "not recorded" if record is None else record.transaction_hash,
            "block": "-" if record is None else record.block_number,
            **cost,
        }
    )
    say("\n[bold]Updates[/]")
    for update in sent:
        colour = "green" if update["status"] == "added" else "red"
        what = short(update["update"]) if update["status"] == "added" else update["detail"]
        say(f"  {update['node']}  [{colour}]{update['status']}[/]  {plain(what)}")


def _training(facts: dict[str, Any]) -> str:
    if facts["attempt"] > 1:
        return "– (nodes send no training metrics after the first attempt)"
    accuracy, loss = facts["train_accuracy"], facts["train_loss"]
    shown = [] if accuracy is None else [f"accuracy {accuracy:.1%}"]
    shown += [] if loss is None else [f"loss {loss:.4f}"]
    return ", ".join(shown) or "–"
