"""How the outcome of ``twopm bench round`` looks on a terminal of 80 columns."""

import statistics

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from twopm_flower.bench.he_table import milliseconds
from twopm_flower.bench.round_report import RoundReport

_TITLES = {"showcase": "showcase", "network": "convolutional network"}


def render(report: RoundReport) -> RenderableType:
    """Return the rounds, and what they come to."""
    rows = "" if report.rows is None else f" of {report.rows:,} rows, epochs: {report.epochs}"
    table = Table(
        title=f"[bold]{_TITLES[report.app]}, {report.parameters:,} parameters[/], "
        f"{report.nodes} nodes{rows}, {report.privacy}",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="Milliseconds, nodes one after the other in one process. Mod and strategy: "
        "encryption, checks, records. The first round opens no sum.",
        caption_justify="left",
    )
    table.add_column("Round", no_wrap=True)
    for name in ("App", "Mod", "Strategy", "Whole round", "Mod + strategy"):
        table.add_column(name, justify="right", no_wrap=True)
    for title, rounds in (("plain Flower", report.plain), ("twopm-flower", report.encrypted)):
        table.add_row(f"[bold]{title}[/]")
        for figures in rounds:
            table.add_row(
                f" {figures.round}",
                milliseconds(figures.app_s),
                milliseconds(figures.mod_s),
                milliseconds(figures.strategy_s),
                milliseconds(figures.wall_s),
                f"{figures.share:.1%}",
            )
        table.add_section()
    return Group(table, _conclusion(report), f"[dim]{escape(str(report.machine))}[/]")


def _conclusion(report: RoundReport) -> str:
    plain = statistics.median(figures.wall_s for figures in report.plain[1:] or report.plain)
    own = statistics.median(figures.wall_s for figures in report.steady)
    text = (
        f"In one process mod and strategy take [bold]{report.share:.1%}[/] of a round, which "
        f"takes {own / plain:.2f} times a round of plain Flower."
    )
    if report.deployed is not None:
        deployed = report.deployed
        wall = statistics.median(
            figures.wall_s for figures in deployed.rounds[1:] or deployed.rounds
        )
        text += (
            f"\nDeployed, a round takes {wall:.2f} s; {milliseconds(deployed.overhead_s)} ms of "
            f"mod and strategy are [bold]{deployed.share:.1%}[/] of it."
        )
    return text
