"""``twopm bundle``: hand a run to somebody who wants to check it."""

from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Home, Json, fields, home_of, print_json, say
from twopm_flower.node.handover import export_bundle

app = typer.Typer(no_args_is_help=True, help="Hand a run to somebody who wants to check it.")


@app.callback()
def _bundle() -> None:
    """Keep ``export`` a verb of its own."""


@app.command(epilog="Example: twopm bundle export --out bundle.json")
def export(
    task: Annotated[
        str | None, typer.Argument(help="The task, or its first digits; else the latest run.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")] = Path("bundle.json"),
    with_ciphertexts: Annotated[
        bool,
        typer.Option(
            "--with-ciphertexts",
            help="For a named auditor: lets the sums be redone. Whoever holds the shared key, "
            "too, could read every update in it.",
        ),
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write one file that is enough to verify a run."""
    bundle = export_bundle(home_of(home), task, out, with_ciphertexts=with_ciphertexts)
    shown = {
        "task_id": bundle.task_id,
        "file": str(out),
        "bytes": out.stat().st_size,
        "rounds": len(bundle.rounds),
        "recorded": sum(entry.record is not None for entry in bundle.rounds),
        "ciphertexts": len(bundle.ciphertexts),
    }
    if json:
        print_json(shown)
        return
    fields(shown)
    if with_ciphertexts and bundle.terms.trust_mode == "shared-key":
        say("[yellow]This file is for the auditor alone.[/]")
