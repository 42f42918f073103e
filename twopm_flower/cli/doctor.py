"""``twopm doctor``: is this machine set up; if not, how to mend it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding

from twopm_flower.cli.output import Home, Json, console, home_of, plain, print_json, say
from twopm_flower.node.doctor import examine

app = typer.Typer()

_SIGNS = {"good": "[green]✓[/]", "note": "[yellow]–[/]", "bad": "[bold red]✗[/]"}


@app.command(epilog="Example: twopm doctor --app . (exit status 1 if something must be mended)")
def doctor(
    app_folder: Annotated[
        Path, typer.Option("--app", help="The folder of the Flower app that is submitted.")
    ] = Path(),
    home: Home = None,
    json: Json = False,
) -> None:
    """Check packages, permissions, the chain, data, and what waits for a person."""
    findings = examine(home_of(home), app_folder)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            subject, detail = plain(finding.subject), plain(finding.detail)
            say(f"{_SIGNS[finding.state]} [bold]{subject}[/]: {detail}")
            if finding.remedy:
                console().print(Padding(plain(finding.remedy), (0, 0, 0, 4), expand=False))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
