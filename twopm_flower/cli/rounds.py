"""``twopm rounds``: what happened in each round of a run."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.table import Table

from twopm_flower.cli.output import (
    Home,
    Json,
    console,
    home_of,
    plain,
    print_json,
    say,
    short,
    work_name,
)
from twopm_flower.inspect import is_synthetic
from twopm_flower.inspect import rounds as rounds_of
from twopm_flower.node.runs import Run, load_run, open_chain, refreshed

app = typer.Typer()


@app.command(epilog="Example: twopm rounds 0x3fa9")
def rounds(
    run: Annotated[
        str | None,
        typer.Argument(help="A bundle, or a task or its first digits; else the latest run here."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file, too.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the rounds of a run: nodes, accuracy, bytes, the chain's work, transactions."""
    loaded = load_up_to_date(home_of(home), run)
    table = rounds_of(loaded.bundle, loaded.timings)
    if csv is not None:
        table.to_csv(csv, index=False)
    if json:
        print_json({"task_id": loaded.bundle.task_id, "rounds": as_json(table)})
        return
    terms = loaded.bundle.terms
    say(f"[bold]{plain(terms.title)}[/]  (trust mode {terms.trust_mode})")
    if is_synthetic(terms) or terms.trust_mode == "plaintext":
        warning = "SYNTHETIC DATA" if is_synthetic(terms) else "PLAINTEXT: nothing was encrypted"
        say(f"[bold red]{warning}[/]")
    say(f"task {loaded.bundle.task_id}")
    console().print(_table(table, work_name(loaded.bundle.deployment.family)))


def load_up_to_date(home: Path, named: str | None) -> Run:
    """Return a run with what its chain holds by now, if the run is in this home."""
    loaded = load_run(home, named)
    if loaded.path.parent.parent != home / "runs":
        return loaded
    if all(entry.record is not None for entry in loaded.bundle.rounds):
        return loaded
    reader, _ = open_chain(home, loaded.bundle.deployment)
    if reader is None:
        return loaded
    return Run(refreshed(loaded.bundle, reader), loaded.path, loaded.timings)


def as_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a data frame as JSON values; what is missing becomes null."""
    # Through object columns, for an integer column with gaps has a null of pandas' own.
    clean = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in clean.to_dict("records")]


def _table(rounds_: pd.DataFrame, work: str | None) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1))
    counted = [] if work is None else [work]
    for name in ("round", "nodes", "accuracy", "loss", "upload", *counted, "transaction"):
        table.add_column(name, justify="left" if name == "transaction" else "right", no_wrap=True)
    for row in as_json(rounds_):
        missing = f" (-{row['excluded']})" if row["excluded"] else ""
        attempt = f".{row['attempt']}" if row["attempt"] > 1 else ""
        table.add_row(
            f"{row['round']}{attempt}",
            f"{row['contributors']}{missing}",
            "–" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
            "–" if row["loss"] is None else f"{row['loss']:.4f}",
            f"{row['upload_bytes']:,} B",
            *(["-" if row["gas"] is None else f"{row['gas']:,}"] if counted else []),
            "not recorded" if row["transaction"] is None else short(row["transaction"], 12),
        )
    return table
