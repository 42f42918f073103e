"""How the outcome of ``twopm bench he`` looks on a terminal of 80 columns."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from twopm_flower.bench.he_report import FLOAT32_BYTES, HeReport, Measurement, Ratio, Skipped

TITLES = {
    "plaintext": "plaintext",
    "tutorial": "TenSEAL tutorial",
    "nvflare": "NVFlare HE",
    "bfv": "bfv",
    "one-time-key": "one-time-key",
}
OWN = ("bfv", "one-time-key")


def render(report: HeReport) -> RenderableType:
    """Return the tables, and below them what was left out."""
    parts: list[RenderableType] = [_costs(report), _quality(report)]
    own = [ratio for ratio in report.ratios if ratio.design in OWN]
    if own:
        parts.append(_ratios(own))
    parts += [
        f"[yellow]not measured[/] {_place(skip.design, skip.size)}: {plain_text(skip)}"
        for skip in report.skipped
    ]
    parts.append(f"[dim]{escape(str(report.machine))}[/]")
    return Group(*parts)


def plain_text(skip: Skipped) -> str:
    """Return why something was not measured, and what to do about it."""
    return escape(skip.reason + (f"\n  {skip.hint}" if skip.hint else ""))


def _costs(report: HeReport) -> Table:
    table = _table(f"[bold]Encrypted sums[/]: {report.nodes} nodes, medians of {report.repeats}")
    table.caption = (
        "Milliseconds: a client encrypts, the server adds one upload, a client opens the sum."
    )
    for name in ("Encrypt", "Add", "Decrypt", "Upload", "x float32", "Download"):
        table.add_column(name, justify="right", no_wrap=True)
    for size, found in _by_size(report):
        table.add_row(f"[bold]{size:,}[/]")
        for m in found:
            table.add_row(
                f" {TITLES[m.design]}",
                *(milliseconds(seconds) for seconds in m.medians),
                number_of_bytes(m.upload_bytes),
                factor(m.upload_bytes, size),
                number_of_bytes(m.download_bytes),
            )
            if m.shares:
                table.add_row(
                    f"  shares, {m.shares.readers} nodes",
                    f"+{milliseconds(m.shares.seconds)}",
                    "",
                    "",
                    f"+{number_of_bytes(m.shares.bytes)}",
                    factor(m.upload_with_shares, size),
                )
        table.add_section()
    return table


def _quality(report: HeReport) -> Table:
    table = _table("[bold]Errors and memory[/]")
    table.caption = (
        "Error: of the mean, at most. Memory: extra, while one update is encrypted, in a "
        "whole round in one process, while the sum is opened."
    )
    for name in ("Error", "Promised", "Encrypt", "Round", "Decrypt"):
        table.add_column(name, justify="right", no_wrap=True)
    for size, found in _by_size(report):
        table.add_row(f"[bold]{size:,}[/]")
        for m in found:
            table.add_row(
                f" {TITLES[m.design]}",
                f"{m.error:.1e}",
                "-" if m.error_bound is None else f"{m.error_bound:.1e}",
                number_of_bytes(m.encrypt_peak_bytes),
                number_of_bytes(m.round_peak_bytes),
                number_of_bytes(m.decrypt_peak_bytes),
            )
        table.add_section()
    return table


def _by_size(report: HeReport) -> Iterator[tuple[int, list[Measurement]]]:
    for size in sorted({m.size for m in report.measurements}):
        yield size, [m for m in report.measurements if m.size == size]


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    table.add_column("Parameters", no_wrap=True)
    return table


def _ratios(ratios: list[Ratio]) -> Table:
    table = _table(f"[bold]Times less than {TITLES[ratios[0].peer]}[/]")
    for name in ("Upload", "+ shares", "Download", "Encrypt", "Add", "Decrypt"):
        table.add_column(name, justify="right", no_wrap=True)
    for ratio in ratios:
        table.add_row(
            f"{TITLES[ratio.design]}, {ratio.size:,}",
            *(
                times(value)
                for value in (
                    ratio.upload,
                    ratio.upload_with_shares,
                    ratio.download,
                    ratio.encrypt,
                    ratio.add,
                    ratio.decrypt,
                )
            ),
        )
    return table


def milliseconds(seconds: float) -> str:
    """Return milliseconds with three significant digits."""
    return significant(1000 * seconds)


def times(value: float) -> str:
    """Return a ratio with an x behind it."""
    return f"{value:,.0f}x" if value >= 10 else f"{value:.1f}x"


def significant(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def number_of_bytes(count: int) -> str:
    """Return bytes with three significant digits in a unit of powers of 1000."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{significant(count / limit)} {unit}"
    return f"{count} B"


def factor(count: int, size: int) -> str:
    """Return bytes over those of as many float32 values."""
    return significant(count / (FLOAT32_BYTES * size))


def _place(design: str, size: int | None) -> str:
    return TITLES[design] + ("" if size is None else f" at {size:,} parameters")
