"""How commands speak: tables for people, JSON for programs, one red line for errors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twopm_flower.config import default_home

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The home to use.", show_default="$TWOPM_HOME, or ~/.twopm"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def home_of(chosen: Path | None) -> Path:
    """Return the home that a command works in."""
    return default_home() if chosen is None else chosen.expanduser().absolute()


def console() -> Console:
    """Return the console for people; made anew, so that it follows a redirected stdout."""
    return Console(highlight=False)


def say(text: str) -> None:
    """Print a line with rich markup."""
    console().print(text)


def print_json(value: Any) -> None:
    """Print a JSON value to stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fields(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair a line.

    A name of 13 letters leaves room for a digest on a line of 80; nothing is ever cut.
    """
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, escape(str(value)))
    console().print(table)


def show_error(message: str, hint: str | None) -> None:
    """Print an error, and what to do about it, to stderr."""
    errors = Console(stderr=True, highlight=False)
    errors.print(f"[bold red]Error:[/] [red]{escape(message)}[/]", soft_wrap=True)
    if hint:
        errors.print(f"  {escape(hint)}", soft_wrap=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless told not to, and stop if the answer is no."""
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)


def short(digest: str | None, digits: int = 8) -> str:
    """Return the first digits of a digest or address, for tables."""
    return "-" if digest is None else f"{digest[: 2 + digits]}…"
