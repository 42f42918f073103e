"""``twopm model``: hand over the model that a node opened."""

from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Home, Json, fields, home_of, print_json
from twopm_flower.node.handover import export_model
from twopm_flower.node.tasks import resolve_task

app = typer.Typer(no_args_is_help=True, help="Hand over the model that a node opened.")


@app.callback()
def _model() -> None:
    """Keep ``export`` a verb of its own."""


@app.command(epilog="Example: twopm model export --out model.safetensors")
def export(
    task: Annotated[str | None, typer.Argument(help="The task, or its first digits.")] = None,
    out: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("model.safetensors"),
    home: Home = None,
    json: Json = False,
) -> None:
    """Copy the model that this node opened last."""
    folder = home_of(home)
    exported = export_model(folder, resolve_task(folder, task), out)
    shown = {"file": str(exported.path), "round": exported.round, "digest": exported.digest}
    if json:
        print_json(shown)
    else:
        fields(shown)
