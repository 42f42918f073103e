"""Draws the outcome of ``twopm bench he``: upload and client time against model size."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twopm_flower.bench.he_report import FLOAT32_BYTES, HeReport, Measurement
from twopm_flower.bench.he_table import TITLES
from twopm_flower.errors import BenchmarkError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#24292f"
_INK_IN_THE_DARK: Final = "#e6edf3"
# Mid-tones, each readable on white and on black; a colour-blind reader tells them by markers.
_LINES: Final = {
    "nvflare": ("#d1493f", "s"),
    "tutorial": ("#c98a1b", "^"),
    "plaintext": ("#8b949e", "o"),
    "bfv": ("#2f81d6", "D"),
    "one-time-key": ("#2a9d5f", "v"),
}
_INCHES: Final = (8.6, 3.7)
FONT: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "twopm-flower",
}


def require_matplotlib() -> None:
    """Check that matplotlib is there.

    Raises
    ------
    BenchmarkError
        If it is not; the extra that brings it is named.
    """
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError as error:
        raise BenchmarkError(
            "A plot needs matplotlib, which is not installed.",
            hint="pip install 'twopm-flower[notebooks]'",
        ) from error


def draw(report: HeReport, file: Path) -> None:
    """Write a picture; an SVG describes itself and follows dark mode.

    Parameters
    ----------
    report : HeReport
    file : Path
        Ends in ``.svg`` or ``.png``.

    Raises
    ------
    BenchmarkError
        If matplotlib is missing, or nothing was measured.
    """
    require_matplotlib()
    if not report.measurements:
        raise BenchmarkError("There is nothing to draw: no design was measured.")
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context(FONT):
        save(
            _figure(report), file, "What encrypted aggregation costs one node", _description(report)
        )


def save(figure: "Figure", file: Path, title: str, description: str) -> None:
    """Write a figure into a file; an SVG gets a title, a description and the reader's ink.

    Parameters
    ----------
    figure : Figure
        Drawn under `FONT`, with `INK` for text and axes.
    file : Path
        Ends in ``.svg`` or ``.png``.
    title, description : str
    """
    if file.suffix != ".svg":
        figure.savefig(file, dpi=160, facecolor="white")
        return
    text = io.StringIO()
    figure.savefig(
        text,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    file.write_text(_finished(text.getvalue(), title, description), encoding="utf-8")


def _figure(report: HeReport) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_INCHES, layout="constrained")
    upload, client = figure.subplots(1, 2)
    designs = [name for name in _LINES if any(m.design == name for m in report.measurements)]
    for design in designs:
        found = sorted((m for m in report.measurements if m.design == design), key=_size)
        colour, marker = _LINES[design]
        style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.8}
        sizes = [m.size for m in found]
        upload.plot(sizes, [m.upload_bytes for m in found], label=TITLES[design], **style)
        client.plot(sizes, [1000 * m.medians[0] for m in found], **style)
        if any(m.shares for m in found):
            dashed = {**style, "linestyle": "--", "marker": None, "linewidth": 1.2}
            totals = [m.upload_with_shares for m in found]
            upload.plot(sizes, totals, label=f"{TITLES[design]} + shares", **dashed)
    _axis(upload, "Upload of one node", report)
    _axis(client, "Encryption by one node", report)
    upload.yaxis.set_major_formatter(_bytes_label)
    client.yaxis.set_major_formatter(_time_label)
    legend = figure.legend(
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8.5,
        handlelength=1.6,
        columnspacing=1.2,
    )
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def _size(measurement: Measurement) -> int:
    return measurement.size


def _axis(axes: "Axes", title: str, report: HeReport) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.set_xlabel("parameters of the model", color=INK)
    sizes = sorted({m.size for m in report.measurements})
    axes.set_xticks(sizes, [_count_label(size) for size in sizes])
    axes.minorticks_off()
    axes.tick_params(colors=INK, length=0)
    axes.grid(visible=True, which="major", color="#8b949e", alpha=0.3, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)


def _count_label(size: int) -> str:
    for limit, unit in ((1_000_000, "M"), (1000, "k")):
        if size >= limit:
            return f"{size / limit:g}{unit}"
    return str(size)


def _bytes_label(value: float, _position: Any = None) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:g} {unit}"
    return f"{value:g} B"


def _time_label(value: float, _position: Any = None) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"


def _finished(svg: str, title: str, description: str) -> str:
    """Return the picture with a title, a description and ink that follows the reader's mode."""
    body = svg[svg.index("<svg") :].replace("xlink:href", "href")
    body = re.sub(r' xmlns:xlink="[^"]*"', "", body).replace(INK, "currentColor")
    start, rest = body.split(">", 1)
    head = (
        f'{start} role="img" aria-labelledby="title desc">\n'
        f' <title id="title">{title}</title>\n'
        f' <desc id="desc">{description}</desc>\n'
        f" <style>svg {{ color: {INK} }} @media (prefers-color-scheme: dark) "
        f"{{ svg {{ color: {_INK_IN_THE_DARK} }} }}</style>"
    )
    return head + rest


def _description(report: HeReport) -> str:
    largest = max(m.size for m in report.measurements)
    told = [
        f"{TITLES[m.design]} uploads {m.upload_bytes / (FLOAT32_BYTES * m.size):.2f} times the "
        f"float32 update and encrypts in {1000 * m.medians[0]:.1f} ms"
        for m in report.measurements
        if m.size == largest
    ]
    return (
        "Two charts with logarithmic axes: bytes that one node uploads, and the time that it "
        f"encrypts, against the number of parameters. At {largest:,}: {'; '.join(told)}."
    )
