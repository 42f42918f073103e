"""The command line ``twopm``: its verbs by name, each imported when it is used.

A verb is a module of this package with a typer application called ``app``; one that has a
single command is a verb without verbs of its own. Exit status: 0 done, 1 failed,
2 wrong usage (or, from ``verify``, nothing wrong but not anchored in a chain), 3 real data
missing. ``TWOPM_DEBUG=1`` shows the traceback of an error.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click
import typer
from typer.core import TyperGroup

from twopm_flower import __version__
from twopm_flower.cli.output import show_error
from twopm_flower.errors import RealDataMissingError, TwopmError

FAILED: Final = 1
REAL_DATA_MISSING: Final = 3
INTERRUPTED: Final = 130

_COMPLETION: Final = ("install_completion", "show_completion")

VERBS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo", "The whole story on this machine, from keys to a verified model."),
    "new": ("new", "Start an encrypted Flower app of your own from a template."),
    "verify": ("verify", "Check a run, a bundle or a receipt, step by step."),
    "rounds": ("rounds", "What happened in each round of a run."),
    "show": ("show", "One round: its updates, its record, who was left out."),
    "node": ("node", "A node's keys, its card, and the nodes that it trusts."),
    "task": ("task", "Create, join, admit, start and confirm tasks."),
    "keys": ("keys", "Deal, accept and show the key that a task's nodes share."),
    "chain": ("chain", "The embedded chain, the contracts, and what is on record."),
    "signer": ("signer", "A process of its own that holds a key and signs by a policy."),
    "infer": ("infer", "Predict on inputs that stay encrypted, with signed receipts."),
    "data": ("data", "The student data: what is found, and where."),
    "bundle": ("bundle", "Hand a run to somebody who wants to check it."),
    "model": ("model", "Hand over the model that a node opened."),
    "bench": ("bench", "What encryption costs, beside what others pay for it."),
    "doctor": ("doctor", "Is this machine set up; if not, how to mend it."),
}


class Verbs(TyperGroup):
    """The group of all verbs; a module is imported when its verb is used, not before."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return [n for n, (module, _) in VERBS.items() if find_spec(f"{__name__}.{module}")]

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Return what the list of verbs shows of a verb."""
        return click.Command(name, help=VERBS[name][1]) if name in VERBS else None

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the verb that is called."""
        name = args[0]
        if name not in self.list_commands(context):
            return super().resolve_command(context, args)
        return name, load_verb(name), args[1:]


def load_verb(name: str) -> click.Command:
    """Import a verb and return its command."""
    command: click.Command = typer.main.get_command(
        import_module(f"{__name__}.{VERBS[name][0]}").app
    )
    command.name = name
    # Typer offers shell completion per application; a verb is not one.
    command.params = [p for p in command.params if p.name not in _COMPLETION]
    return command


app = typer.Typer(
    name="twopm",
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage (verify: not anchored), 3 real data "
    "missing.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"twopm-flower {__version__}")
        raise typer.Exit


@app.callback()
def _twopm(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Federated learning that anyone can check and the server cannot read."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    command = typer.main.get_command(app)
    try:
        result: Any = command.main(
            args=None if arguments is None else list(arguments),
            prog_name="twopm",
            standalone_mode=False,
        )
    except TwopmError as error:
        if os.environ.get("TWOPM_DEBUG") == "1":
            raise
        show_error(error.message, error.hint)
        return REAL_DATA_MISSING if isinstance(error, RealDataMissingError) else FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        # The terminal has just shown ^C, perhaps behind a question.
        typer.echo(err=True)
        show_error("interrupted", None)
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run())
