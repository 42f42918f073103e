"""``twopm demo``: the whole story on this machine, from keys to a verified model."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from twopm_flower.cli.demo_folder import remove_former_demos, work_folder
from twopm_flower.cli.output import Json, console, plain, print_json

app = typer.Typer()


class Subject(StrEnum):
    """Which of the two files."""

    MAT = "mat"
    POR = "por"


class Setup(StrEnum):
    """Which earlier grades are features: both, the first, none."""

    A = "A"
    B = "B"
    C = "C"


class Privacy(StrEnum):
    """Who could read an update."""

    SHARED_KEY = "shared-key"
    ONE_TIME_KEY = "one-time-key"
    PLAINTEXT = "plaintext"


@app.command(
    epilog="Example: twopm demo --rounds 3 --subject por. Exit status: 0 only if the run is "
    "verified, 1 if a step fails, 2 if it is not anchored, 3 if --require-real finds no data."
)
def demo(
    *,
    simulation: Annotated[
        bool, typer.Option("--simulation", help="Use Flower's simulation engine.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of training.")] = 5,
    nodes: Annotated[int, typer.Option(min=3, max=10, help="How many nodes share the data.")] = 3,
    subject: Annotated[Subject, typer.Option(help="Mathematics or Portuguese.")] = Subject.MAT,
    setup: Annotated[
        Setup, typer.Option(help="Earlier grades as features: A both, B the first, C none.")
    ] = Setup.A,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the UCI files.", show_default="the usual places"),
    ] = None,
    require_real: Annotated[
        bool, typer.Option("--require-real", help="Stop rather than make up students.")
    ] = False,
    privacy: Annotated[
        Privacy,
        typer.Option(help="one-time-key withstands colluding nodes; plaintext encrypts nothing."),
    ] = Privacy.SHARED_KEY,
    chain: Annotated[
        str, typer.Option(help="Where rounds are recorded: evm, solana, or ledger.")
    ] = "evm",
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder for everything.", show_default="$TWOPM_HOME/demo/..."),
    ] = None,
    json: Json = False,
) -> None:
    """Train encrypted on this machine, record every round on a chain, and verify it all.

    Starts a chain, a SuperLink and SuperNodes, and stops them, also on Ctrl-C.
    """
    # What the story needs takes seconds to import, which --help should not pay.
    from twopm_flower.cli.demo_report import next_steps, render, to_json  # noqa: PLC0415
    from twopm_flower.cli.demo_story import DemoOptions, run_demo  # noqa: PLC0415

    options = DemoOptions(
        rounds=rounds,
        nodes=nodes,
        subject=subject.value,
        setup=setup.value,
        privacy=privacy.value,
        chain=chain,
        simulation=simulation,
        data=data,
        require_real=require_real,
    )
    with work_folder(keep) as folder, _Telling(rounds, quiet=json) as teller:
        result = run_demo(folder, options, teller)
    status = result.report.exit_code
    removed = remove_former_demos(folder) if keep is None and status == 0 else 0
    if json:
        print_json(to_json(result))
    else:
        console().print(render(result))
        console().print(next_steps(result), soft_wrap=True)
        if removed:
            what = "the earlier demo" if removed == 1 else f"{removed} earlier demos"
            console().print(
                f"[dim]Removed {what}: only the latest stays, unless --keep is given.[/]"
            )
    raise typer.Exit(status)


class _Telling:
    """Shows the story on the terminal: a line per step, and a clock while it trains."""

    def __init__(self, rounds: int, *, quiet: bool) -> None:
        self._rounds = rounds
        self._console = Console(highlight=False, emoji=False, quiet=quiet)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=quiet,
        )
        self._started = time.monotonic()
        self._round = 0

    def __enter__(self) -> Self:
        self._console.rule("[bold]twopm demo[/]", align="left", style="cyan")
        self._progress.start()
        self._task = self._progress.add_task("looking for the data")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._console.print("[yellow]interrupted: everything was stopped[/]")

    def done(self, text: str) -> None:
        """Print a line that stays."""
        seconds = time.monotonic() - self._started
        sign = "[red]✗[/]" if "FAILED" in text else "[green]✓[/]"
        self._progress.console.print(f"[dim]{seconds:5.0f} s[/] {sign} {plain(text)}")

    def doing(self, text: str) -> None:
        """Show what is going on."""
        self._progress.update(self._task, description=plain(text))

    def training(self, round_: int, doing: str) -> None:
        """Show where the run is; a round that has ended leaves a line."""
        if round_ > self._round > 0:
            self.done(f"round {self._round} of {self._rounds}")
        self._round = round_
        self.doing(f"round {round_} of {self._rounds}: {doing}")

    def warn(self, text: str) -> None:
        """Print a warning above the clock; to stderr where everything else is quiet."""
        line = f"[yellow]{plain(text)}[/]"
        if self._console.quiet:
            Console(stderr=True, highlight=False, emoji=False).print(line)
        else:
            self._progress.console.print(line)
