"""How the outcome of ``twopm bench inference`` looks on a terminal of 80 columns."""

from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from twopm_flower.bench.inference import medians_ms
from twopm_flower.bench.inference_report import InferenceReport

TITLES: Final = {
    "tenseal-dot": "TenSEAL dot",
    "latency": "ours, public",
    "latency-secret": "ours, secret",
}


def render(report: InferenceReport) -> RenderableType:
    """Return a table of single predictions, one of batches, and what a service did under load."""
    parts: list[RenderableType] = [_single(report), _batches(report)]
    load = report.load
    if load is not None:
        lost = "nothing lost" if not load.lost else f"[bold red]{load.lost} lost[/]"
        parts.append(
            f"Over HTTP on loopback, {load.rate:g} requests a second for {load.seconds:g} s to "
            f"{load.workers} workers:\np50 {load.percentile_ms(50):.1f} ms, "
            f"p99 {load.percentile_ms(99):.1f} ms, "
            f"slowest {load.percentile_ms(100):.1f} ms, {lost}."
        )
    parts.append(f"[dim]{escape(str(report.machine))}[/]")
    return Group(*parts)


def size(count: float) -> str:
    """Return a number of bytes in three digits."""
    for limit, unit in ((1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:g} B"


def _single(report: InferenceReport) -> Table:
    table = _table(
        f"One prediction of {report.features} features",
        f"Medians in ms. The service takes {report.ratio:.0f}x less time than TenSEAL's dot "
        "(degree 8192) in the same run.\n"
        "Secret: weights are masked. Keys: sent once by each requester.",
        ("Design", "Encrypt", "Service", "Open", "Request", "Answer", "Keys", "Error"),
    )
    for design in report.designs:
        encrypt, service, opened = medians_ms((design.encrypt_s, design.service_s, design.open_s))
        table.add_row(
            TITLES[design.design],
            f"{encrypt:.2f}",
            f"{service:.2f}",
            f"{opened:.2f}",
            size(design.request_bytes),
            size(design.answer_bytes),
            size(design.setup_bytes) if design.setup_bytes else "none",
            f"{design.error:.0e}",
        )
    return table


def _batches(report: InferenceReport) -> Table:
    table = _table(
        "Many rows in one request",
        "Rows/s: of the service's time.",
        ("Weights", "Rows", "Encrypt", "Service", "Open", "Rows/s", "Request", "Answer"),
    )
    for batch in report.batches:
        encrypt, service, opened = medians_ms((batch.encrypt_s, batch.service_s, batch.open_s))
        table.add_row(
            batch.policy,
            f"{batch.rows:,}",
            f"{encrypt:.0f} ms",
            f"{service:.0f} ms",
            f"{opened:.0f} ms",
            f"{batch.per_second:,.0f}",
            size(batch.request_bytes),
            size(batch.answer_bytes),
        )
    return table


def _table(title: str, caption: str, columns: tuple[str, ...]) -> Table:
    table = Table(
        title=f"[bold]{title}[/]",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        caption=caption,
        caption_justify="left",
        padding=(0, 1, 0, 0),
    )
    table.add_column(columns[0], no_wrap=True)
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table
