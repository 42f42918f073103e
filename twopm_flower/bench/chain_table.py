"""How the outcome of ``twopm bench chain`` looks on a terminal of 80 columns."""

import statistics
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from twopm_flower.bench.chain_report import ChainReport


def render(report: ChainReport) -> RenderableType:
    """Return a row per kind of chain, and what signing costs."""
    counts = [work.nodes for work in report.chains[0].work] if report.chains else []
    table = Table(
        title="[bold]A round on chain[/]",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        caption="Latency: from queueing a record to its inclusion, median and slowest. "
        "Work of a later record: gas, or Solana's compute units.",
        caption_justify="left",
    )
    table.add_column("Chain", no_wrap=True)
    for name in ("Latency", "Slowest", "Records/s", *(f"Work, {n} nodes" for n in counts)):
        table.add_column(name, justify="right")
    for chain in report.chains:
        table.add_row(
            chain.family,
            f"{_ms(chain.latencies_s):.0f} ms",
            f"{1000 * max(chain.latencies_s):.0f} ms",
            f"{chain.throughput_per_s:.0f}",
            *(f"{work.later:,}" if work.later else "-" for work in chain.work),
        )
    parts: list[RenderableType] = [table]
    if report.chains:
        first = report.chains[0]
        parts.append(
            f"{first.processes} processes delivered {first.records} records each, at once."
        )
    if report.signer is not None:
        local, apart = _ms(report.signer.local_s), _ms(report.signer.isolated_s)
        parts.append(
            f"Signing takes {local:.1f} ms in the process and {apart:.1f} ms by the isolated "
            "signer."
        )
    for family, why in report.skipped.items():
        parts.append(f"[yellow]{escape(family)} was not measured: {escape(why)}[/]")
    parts.append(f"[dim]{escape(str(report.machine))}[/]")
    return Group(*parts)


def _ms(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds)
