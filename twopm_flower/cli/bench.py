"""``twopm bench``: what encryption costs, beside what others pay for it."""

import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from twopm_flower.cli.output import Home, Json, console, home_of, plain, print_json, say
from twopm_flower.errors import BenchmarkError, ConfigError

if TYPE_CHECKING:
    from twopm_flower.bench.he_report import Skipped
    from twopm_flower.bench.round import RoundOptions
    from twopm_flower.bench.round_report import DeployedRound

app = typer.Typer(no_args_is_help=True, help="What encryption costs, beside what others pay.")


@app.command(
    epilog="Example: twopm bench he --sizes 41,10000 --repeats 5. Exit status: 0 measured, "
    "1 nothing could be measured."
)
def he(
    *,
    sizes: Annotated[
        str, typer.Option(help="Parameters of the models, with commas between.")
    ] = "41,10000,1000000,10000000",
    designs: Annotated[
        str, typer.Option(help="What is measured, with commas between.")
    ] = "plaintext,tutorial,nvflare,bfv,one-time-key",
    repeats: Annotated[int, typer.Option(min=1, help="Timed repeats; medians are shown.")] = 7,
    nodes: Annotated[int, typer.Option(min=2, max=1000, help="Nodes whose updates add up.")] = 10,
    quick: Annotated[bool, typer.Option("--quick", help="Only 41 and 10,000 parameters.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture (SVG or PNG) into this file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Measure encrypted sums of several designs side by side, peers included."""
    from twopm_flower.bench.he import QUICK_SIZES, HeOptions, run_he  # noqa: PLC0415
    from twopm_flower.bench.he_table import render  # noqa: PLC0415

    options = HeOptions(
        sizes=QUICK_SIZES if quick else _numbers(sizes),
        designs=tuple(name.strip() for name in designs.split(",") if name.strip()),
        repeats=repeats,
        nodes=nodes,
        command=_command(),
    )
    if plot is not None:
        _check_plot(plot)
    with _Bar(quiet=json) as bar:
        report = run_he(options, home_of(home), bar)
    if out is not None:
        out.write_text(report.to_json(), encoding="utf-8")
    if plot is not None:
        from twopm_flower.bench.he_plot import draw  # noqa: PLC0415

        draw(report, plot)
    if json:
        print_json(report.model_dump(mode="json"))
    elif report.measurements:
        console().print(render(report))
    else:
        raise _nothing_measured(report.skipped)
    raise typer.Exit(0 if report.measurements else 1)


class Privacy(StrEnum):
    """Who could read an update."""

    SHARED_KEY = "shared-key"
    ONE_TIME_KEY = "one-time-key"
    PLAINTEXT = "plaintext"


@app.command("round", epilog="Example: twopm bench round --parameters 1000000 --rounds 3")
def round_(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of training.")] = 3,
    nodes: Annotated[int, typer.Option(min=3, max=10, help="How many nodes take part.")] = 3,
    privacy: Annotated[Privacy, typer.Option(help="The trust mode.")] = Privacy.SHARED_KEY,
    parameters: Annotated[
        int | None,
        typer.Option(
            min=1000, help="Train a made-up network of that size.", show_default="the showcase"
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option(min=1, help="Training rows of a node, for a made-up network.")
    ] = 500,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs in a round, for a made-up network.")
    ] = 5,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Also deploy the app, as the demo does.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    json: Json = False,
) -> None:
    """Measure what encryption, checks and records add to whole rounds of an app."""
    from twopm_flower.bench.round import RoundOptions, run_round  # noqa: PLC0415
    from twopm_flower.bench.round_table import render  # noqa: PLC0415

    options = RoundOptions(
        rounds=rounds,
        nodes=nodes,
        privacy=privacy.value,
        parameters=parameters,
        rows=rows,
        epochs=epochs,
        command=_command(),
    )
    with _Bar(quiet=json) as bar:
        report = run_round(options, bar)
        if deployed:
            report = report.with_deployment(_deploy(options, bar))
    if out is not None:
        out.write_text(report.to_json(), encoding="utf-8")
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        console().print(render(report))


@app.command(epilog="Example: twopm bench chain --families evm,ledger --rounds 10")
def chain(
    *,
    families: Annotated[
        str, typer.Option(help="Kinds of chain, with commas between.", show_default="all")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Records timed singly.")] = 20,
    processes: Annotated[
        int, typer.Option(min=1, max=16, help="Processes that deliver at once.")
    ] = 4,
    records: Annotated[int, typer.Option(min=1, max=1000, help="Records of each process.")] = 25,
    nodes: Annotated[
        str, typer.Option(help="Numbers of nodes to record rounds of, with commas between.")
    ] = "2,10,50",
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    json: Json = False,
) -> None:
    """Measure what it takes to get a round onto each kind of chain, and to sign it apart."""
    from twopm_flower.bench.chain import ChainOptions, run_chain  # noqa: PLC0415
    from twopm_flower.bench.chain_table import render  # noqa: PLC0415
    from twopm_flower.chain.backends import families as registered  # noqa: PLC0415

    options = ChainOptions(
        families=tuple(name.strip() for name in families.split(",") if name.strip())
        or registered(),
        rounds=rounds,
        processes=processes,
        records=records,
        nodes=_numbers(nodes),
        command=_command(),
    )
    with tempfile.TemporaryDirectory() as folder, _Bar(quiet=json) as bar:
        report = run_chain(Path(folder), options, bar)
    if out is not None:
        out.write_text(report.to_json(), encoding="utf-8")
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        console().print(render(report))


@app.command(epilog="Example: twopm bench inference --seconds 10 --plot inference.svg")
def inference(
    *,
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Timed predictions.")] = 200,
    rows: Annotated[int, typer.Option(min=1, max=1 << 20, help="Rows of a batch.")] = 20_480,
    rate: Annotated[float, typer.Option(min=1, max=10_000, help="Requests a second.")] = 50.0,
    seconds: Annotated[
        float, typer.Option(min=0, max=3600, help="How long they come; 0 asks no service.")
    ] = 60.0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the service.")] = 2,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture (SVG or PNG) into this file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    json: Json = False,
) -> None:
    """Measure private predictions, beside TenSEAL's dot, and a service under load."""
    from twopm_flower.bench.inference import InferenceOptions, run_inference  # noqa: PLC0415
    from twopm_flower.bench.inference_load import LoadOptions, measure_load  # noqa: PLC0415
    from twopm_flower.bench.inference_table import render  # noqa: PLC0415

    if plot is not None:
        _check_plot(plot)
    options = InferenceOptions(repeats=repeats, rows=rows, command=_command())
    pressed = LoadOptions(rate=rate, seconds=seconds, workers=workers)
    with tempfile.TemporaryDirectory() as folder, _Bar(quiet=json) as bar:
        report = run_inference(
            options,
            bar,
            None if not seconds else lambda told: measure_load(Path(folder), pressed, told),
        )
    if out is not None:
        out.write_text(report.to_json(), encoding="utf-8")
    if plot is not None:
        from twopm_flower.bench.inference_plot import draw  # noqa: PLC0415

        draw(report, plot)
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        console().print(render(report))


@app.command(epilog="Example: twopm bench peers --install")
def peers(
    *,
    install: Annotated[
        bool, typer.Option("--install", help="Install what is missing, with pip.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show which peers can be measured here, or install them in environments of their own."""
    from twopm_flower.bench.peers import PEERS  # noqa: PLC0415

    folder = home_of(home)
    shown = []
    for peer in PEERS.values():
        if install and not peer.installed(folder):
            peer.install(folder)
        python = peer.python(folder)
        shown.append(
            {
                "peer": peer.name,
                "title": peer.title,
                "installed": peer.installed(folder),
                "python": str(python),
            }
        )
    if json:
        print_json(shown)
        return
    for entry in shown:
        state = "[green]installed[/]" if entry["installed"] else "[yellow]not installed[/]"
        say(f"{plain(entry['title'])}: {state}")
        say(f"  {plain(entry['python'])}")
    if not all(entry["installed"] for entry in shown):
        say("Install: twopm bench peers --install")


class _Bar:
    """A progress bar; silent where only JSON is wanted."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(highlight=False, emoji=False, stderr=True),
            transient=True,
            disable=quiet,
        )
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def doing(self, text: str, done: int = 0, of: int | None = None) -> None:
        """Show what is measured now; a deployment does not say of how many steps."""
        self._progress.update(self._task, description=plain(text), completed=done, total=of)

    def done(self, text: str) -> None:
        """Show what the deployment did last."""
        self._progress.update(self._task, description=plain(text))

    def warn(self, text: str) -> None:
        """Show what nobody may miss, above the bar; it stays."""
        self._progress.console.print(f"[bold yellow]{plain(text)}[/]")

    def training(self, round_: int, doing: str) -> None:
        """Show where the deployment is."""
        self._progress.update(self._task, description=plain(f"round {round_}: {doing}"))


def _deploy(options: "RoundOptions", bar: _Bar) -> "tuple[DeployedRound, ...]":
    from twopm_flower.bench.round import CLIP  # noqa: PLC0415
    from twopm_flower.bench.round_deployment import (  # noqa: PLC0415
        deploy_made_up,
        deployed_rounds,
    )
    from twopm_flower.cli.demo_story import DemoOptions, run_demo  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        if options.parameters is not None:
            return deploy_made_up(
                Path(folder),
                run_config=options.made_up_config,
                privacy=options.privacy,
                clip=CLIP,
                told=bar.done,
            )
        demo = DemoOptions(rounds=options.rounds, nodes=options.nodes, privacy=options.privacy)
        return deployed_rounds(run_demo(Path(folder), demo, bar).timings)


def _nothing_measured(skipped: "Sequence[Skipped]") -> BenchmarkError:
    first, *others = {skip.reason: skip for skip in skipped}.values()
    more = f" (and {len(others)} more reasons; --json lists them)" if others else ""
    return BenchmarkError(f"nothing could be measured: {first.reason}{more}", hint=first.hint)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part.replace("_", "")) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a list of sizes.", hint="Write it like 41,10000,1000000."
        ) from error


def _command() -> str:
    return " ".join(["twopm", *sys.argv[1:]])


def _check_plot(plot: Path) -> None:
    from twopm_flower.bench.he_plot import require_matplotlib  # noqa: PLC0415

    if plot.suffix not in (".svg", ".png"):
        raise ConfigError(f"{plot} is neither .svg nor .png.")
    require_matplotlib()
