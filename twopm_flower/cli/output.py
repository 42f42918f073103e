"""How commands speak: tables for people, JSON for programs, one red line for errors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twopm_flower.config import default_home
from twopm_flower.errors import ConfigError
from twopm_flower.records.printable import UNPRINTABLE, printable

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The home to use.", show_default="$TWOPM_HOME, or ~/.twopm"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


_WORK = {"evm": "gas", "solana": "units", "ledger": None}


def work_name(family: str) -> str | None:
    """Return what a kind of chain counts work in, or None where it counts none.

    A record's ``gas_used`` is gas on an EVM, and compute units on Solana.
    """
    return _WORK.get(family, "work")


def home_of(chosen: Path | None) -> Path:
    """Return the home that a command works in."""
    return default_home() if chosen is None else chosen.expanduser().absolute()


def console() -> Console:
    """Return the console for people; made anew, so that it follows a redirected stdout."""
    return Console(highlight=False, emoji=False)


def plain(text: object) -> str:
    """Return text of a record, a file, another party or an error as markup that shows it.

    Brackets stay brackets, and what would steer the terminal is shown as a sign: whoever
    wrote a title or a reason could otherwise colour, hide or overwrite what this program says.

    Parameters
    ----------
    text : object
        Anything; its `str` is shown.
    """
    return escape(printable(text))


def say(text: str) -> None:
    """Print a line with rich markup; what others wrote goes through `plain` first."""
    console().print(text)


def print_json(value: Any) -> None:
    """Print a JSON value to stdout; nothing in it steers a terminal."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    # JSON itself escapes C0 only. A line end between lines is layout; inside a string it is \n.
    typer.echo("\n".join(UNPRINTABLE.sub(lambda c: f"\\u{ord(c.group()):04x}", s) for s in lines))


def fields(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair a line.

    A name of 13 letters leaves room for a digest on a line of 80; nothing is ever cut.
    """
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, plain(value))
    console().print(table)


def show_error(message: str, hint: str | None) -> None:
    """Print an error, and what to do about it, to stderr."""
    errors = Console(stderr=True, highlight=False, emoji=False)
    errors.print(f"[bold red]Error:[/] [red]{plain(message)}[/]", soft_wrap=True)
    if hint:
        errors.print(f"  {plain(hint)}", soft_wrap=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless told not to, and stop if the answer is no.

    Raises
    ------
    ConfigError
        The input has ended, so that nobody can answer.
    """
    if yes:
        return
    try:
        agreed = typer.confirm(question)
    except click.Abort as error:
        # Click raises the same error for Ctrl-C and for the end of the input.
        if isinstance(error.__context__, EOFError):
            typer.echo()
            raise ConfigError(
                "nobody answers: the input has ended, and nothing was changed",
                hint="Pass --yes to agree without being asked.",
            ) from error
        raise
    if not agreed:
        raise typer.Exit(1)


def short(digest: str | None, digits: int = 8) -> str:
    """Return the first digits of a digest or address, for tables."""
    return "-" if digest is None else f"{digest[: 2 + digits]}…"
