"""``twopm data``: which student data are found, and where."""

from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Home, Json, fields, home_of, plain, print_json, say
from twopm_flower.node.data_files import add_file, data_folder, find_data

app = typer.Typer(no_args_is_help=True, help="The student data: what is found, and where.")


@app.command(epilog="Example: twopm data show --subject por")
def show(
    subject: Annotated[str, typer.Option(help="mat or por.")] = "mat",
    require_real: Annotated[
        bool, typer.Option("--require-real", help="Exit with status 3 if there is no real file.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show which rows would be used. Downloads nothing."""
    found = find_data(home_of(home), subject, require_real=require_real)
    shown = {
        "label": found.label,
        "source": found.source,
        "path": str(found.path or ""),
        "rows": len(found.frame),
        "sha256": found.sha256,
        "published": found.is_published,
    }
    if json:
        print_json(shown)
    else:
        fields(shown)


@app.command(epilog="Example: twopm data add student-mat.csv")
def add(
    file: Annotated[Path, typer.Argument(help="A CSV as UCI publishes it.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Copy a published file to where it is found without being named."""
    stored = add_file(home_of(home), file)
    if json:
        print_json({"path": str(stored)})
    else:
        say(f"[green]{plain(stored)} is in place.[/]")


@app.command(epilog="Example: twopm data path")
def path(home: Home = None, json: Json = False) -> None:
    """Print the folder in which files are found without being named."""
    folder = data_folder(home_of(home))
    if json:
        print_json({"path": str(folder)})
    else:
        typer.echo(str(folder))
