"""``twopm verify``: check a run, a bundle or a receipt, step by step."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Home, Json, home_of, plain, print_json, say, show_error
from twopm_flower.cli.verify_output import show_ending, show_step
from twopm_flower.errors import ConfigError
from twopm_flower.node.runs import load_run, open_chain, refreshed
from twopm_flower.verify.checklist import verify_bundle
from twopm_flower.verify.report import Report

app = typer.Typer()


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
    receipt: Annotated[
        Path | None,
        typer.Option(help="Check the receipt of a private prediction instead of a run."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="With --receipt: the model, to compute its answer again."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check a run, step by step: signatures, sums, chain records, models. Or a receipt."""
    folder = home_of(home)
    if receipt is not None and run is not None:
        raise ConfigError("a run and a receipt are checked one at a time", hint="Leave one out.")
    if receipt is not None:
        # A run is checked without what receipts need.
        from twopm_flower.cli.verify_receipt import verify_receipt_file  # noqa: PLC0415

        status = verify_receipt_file(
            receipt,
            model=model,
            chain=chain,
            home=folder,
            offline=offline,
            redone=require is Level.RE_EXECUTED,
            json=json,
        )
        raise typer.Exit(status)
    if model is not None:
        raise ConfigError("--model goes with --receipt", hint="Give the receipt, too.")
    loaded = load_run(folder, run, with_ciphertexts=True)
    bundle = loaded.bundle
    reader, why = (None, "--offline") if offline else open_chain(folder, bundle.deployment, chain)
    if reader is not None and loaded.path.parent.parent == folder / "runs":
        # A run's own folder may be older than its last delivery; a bundle speaks for itself.
        bundle = refreshed(bundle, reader)
    if not json:
        say(f"[bold]{plain(bundle.terms.title)}[/]  ({len(bundle.rounds)} rounds)")
        say(f"task {bundle.task_id}\n")
    report = verify_bundle(bundle, chain=reader, progress=None if json else show_step)
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


def _show_outcome(report: Report, why_no_chain: str | None) -> None:
    level = "re-executed" if report.level == "re-executed" else "checked by fingerprints"
    success = f"[bold green]Every step holds.[/] Sums were {level}."
    show_ending(
        report.first_failure, success if report.anchored else None, report.notes, why_no_chain
    )
