"""How the steps of a verification are shown."""

import re
from collections.abc import Sequence
from typing import Final

from rich.table import Table

from twopm_flower.cli.output import console, plain, say, short
from twopm_flower.verify.report import StepResult

_SIGNS: Final = {"passed": "[green]✓[/]", "failed": "[bold red]✗[/]", "skipped": "[yellow]–[/]"}
_LONG: Final = re.compile(r"0x[0-9a-fA-F]{40,64}")


def show_step(step: StepResult) -> None:
    """Show a step of a checklist and how it ended."""
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


def show_ending(
    failure: StepResult | None, success: str | None, notes: Sequence[str], why_no_chain: str | None
) -> None:
    """Show what follows from all steps.

    Parameters
    ----------
    failure : StepResult or None
        The step that does not hold.
    success : str or None
        What to say, as markup, where all hold and a chain confirms it; None if none does.
    notes : sequence of str
        What a reader should know besides.
    why_no_chain : str or None
        Why none was asked.
    """
    say("")
    if failure is not None:
        say(f"[bold red]Step {failure.number} does not hold: {plain(failure.title)}.[/]")
    elif success is not None:
        say(success)
    else:
        say("[bold yellow]Every step that could be checked holds; no chain confirms it.[/]")
    if failure is None and why_no_chain is not None:
        say(f"No chain was asked: {plain(why_no_chain)}")
    for note in notes:
        say(f"[dim]· {plain(note)}[/]")
