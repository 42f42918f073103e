"""``twopm verify``: check a run or a bundle, step by step."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

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
    show_error,
)
from twopm_flower.node.runs import load_run, open_chain, refreshed
from twopm_flower.verify.checklist import verify_bundle
from twopm_flower.verify.report import Report, StepResult

app = typer.Typer()

_SIGNS = {"passed": "[green]✓[/]", "failed": "[bold red]✗[/]", "skipped": "[yellow]–[/]"}

_LONG = re.compile(r"0x[0-9a-fA-F]{40,64}")


class Level(StrEnum):
    """How thoroughly sums have to be checked."""

    RE_EXECUTED = "re-executed"
    FINGERPRINTS = "fingerprints"


@app.command(
    epilog="Example: twopm verify bundle.json --chain chain.toml. "
    "Exit status: 0 all steps hold, 1 a step fails, 2 all hold but nothing is anchored."
)
def verify(  # noqa: PLR0917  # one parameter for each option
    run: Annotated[
        str | None,
        typer.Argument(help="A bundle, or a task or its first digits; else the latest run here."),
    ] = None,
    chain: Annotated[
        Path | None,
        typer.Option(help="The chain.toml to believe.", show_default="the home's own"),
    ] = None,
    require: Annotated[
        Level, typer.Option(help="Fail unless sums were checked at least like this.")
    ] = Level.FINGERPRINTS,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no chain; the exit status is then 2 at best.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check a run, step by step: signatures, sums, chain records, models."""
    folder = home_of(home)
    loaded = load_run(folder, run, with_ciphertexts=True)
    bundle = loaded.bundle
    reader, why = (None, "--offline") if offline else open_chain(folder, bundle.deployment, chain)
    if reader is not None and loaded.path.parent.parent == folder / "runs":
        # A run's own folder may be older than its last delivery; a bundle speaks for itself.
        bundle = refreshed(bundle, reader)
    if not json:
        say(f"[bold]{plain(bundle.terms.title)}[/]  ({len(bundle.rounds)} rounds)")
        say(f"task {bundle.task_id}\n")
    report = verify_bundle(bundle, chain=reader, progress=None if json else _show_step)
    too_weak = require is Level.RE_EXECUTED and report.level != "re-executed"
    status = report.exit_code or int(too_weak)
    if json:
        print_json({**report.to_json(), "bundle": str(loaded.path), "exit_code": status})
    else:
        _show_outcome(report, why)
    if too_weak and report.exit_code == 0:
        show_error(
            "the sums were checked by fingerprints, not re-executed",
            "Verify in the coordinator's home, or a bundle exported --with-ciphertexts.",
        )
    raise typer.Exit(status)


def _show_step(step: StepResult) -> None:
    detail = step.detail
    if step.status != "failed":
        # Whoever looks for a difference needs every digit; whoever sees a tick does not.
        detail = _LONG.sub(lambda found: short(found.group()), detail)
    line = Table.grid(padding=(0, 1))
    line.add_column(width=2, justify="right")
    line.add_column(width=1)
    line.add_column(width=36, overflow="fold")
    line.add_column(overflow="fold", style="red" if step.status == "failed" else "dim")
    line.add_row(str(step.number), _SIGNS[step.status], plain(step.title), plain(detail))
    console().print(line)


def _show_outcome(report: Report, why_no_chain: str | None) -> None:
    say("")
    failure = report.first_failure
    if failure is not None:
        say(f"[bold red]Step {failure.number} does not hold: {plain(failure.title)}.[/]")
    elif report.anchored:
        level = "re-executed" if report.level == "re-executed" else "checked by fingerprints"
        say(f"[bold green]Every step holds.[/] Sums were {level}.")
    else:
        say("[bold yellow]Every step that could be checked holds; no chain confirms it.[/]")
    if failure is None and why_no_chain is not None:
        say(f"No chain was asked: {plain(why_no_chain)}")
    for note in report.notes:
        say(f"[dim]· {plain(note)}[/]")
