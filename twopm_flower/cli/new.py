"""``twopm new``: a small Flower app with encryption, to start an own one from."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Json, plain, print_json, say
from twopm_flower.errors import ConfigError

app = typer.Typer()

TEMPLATE = Path(__file__).resolve().parents[1] / "templates" / "encrypted-app"
_TEMPLATE_NAME = f'name = "{TEMPLATE.name}"'
_APP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
"""What Flower takes as the name of an app and of its folder."""


@app.command(epilog="Example: twopm new my-app")
def new(
    folder: Annotated[Path, typer.Argument(help="Where the app goes; its last part is its name.")],
    json: Json = False,
) -> None:
    """Write a small PyTorch app whose updates are encrypted, ready for 'flwr run'."""
    files = write_new_app(folder)
    if json:
        print_json({"folder": str(folder), "files": list(files)})
        return
    say(f"[green]Wrote a Flower app of {len(files)} files to {plain(folder)}.[/]")
    say("Its README.md tells how to install and run it.")


def write_new_app(folder: Path) -> tuple[str, ...]:
    """Copy the template app to a folder that does not exist yet, and name it after the folder.

    Parameters
    ----------
    folder : Path
        Its last part becomes the name of the app.

    Returns
    -------
    tuple of str
        The files written, relative to the folder.

    Raises
    ------
    ConfigError
        The folder exists, cannot be made, or Flower would not take its name for an app.
    """
    name = folder.absolute().name
    if not _APP_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a Flower app",
            hint="Start with a letter; use letters, digits and hyphens, 32 at most.",
        )
    try:
        shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    except FileExistsError as error:
        raise ConfigError(
            f"{folder} exists already", hint="Choose another folder; nothing was written."
        ) from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    metadata = folder / "pyproject.toml"
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(text.replace(_TEMPLATE_NAME, f'name = "{name}"', 1), encoding="utf-8")
    return tuple(
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    )
