"""Draws the outcome of ``twopm bench inference``: a service's time, and how soon it answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from twopm_flower.bench.he_plot import FONT, INK, require_matplotlib, save
from twopm_flower.bench.inference_report import InferenceReport
from twopm_flower.bench.inference_table import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: Final = {"tenseal-dot": "#c98a1b", "latency": "#2a9d5f", "latency-secret": "#2f81d6"}
_INCHES: Final = (8.6, 3.0)


def draw(report: InferenceReport, file: Path) -> None:
    """Write a picture; an SVG describes itself and follows dark mode.

    Parameters
    ----------
    report : InferenceReport
    file : Path
        Ends in ``.svg`` or ``.png``.

    Raises
    ------
    BenchmarkError
        If matplotlib is missing.
    """
    require_matplotlib()
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context(FONT):
        save(_figure(report), file, "What a private prediction takes", _description(report))


def _figure(report: InferenceReport) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_INCHES, layout="constrained")
    if report.load is None or not report.load.latencies_s:
        _service_times(figure.subplots(), report)
        return figure
    single, load = figure.subplots(1, 2)
    _service_times(single, report)
    latencies = sorted(1000 * seconds for seconds in report.load.latencies_s)
    shares = [(index + 1) / len(latencies) * 100 for index in range(len(latencies))]
    load.plot(latencies, shares, color=_COLOURS["latency"], linewidth=1.8)
    for percent in (50, 99):
        at = report.load.percentile_ms(percent)
        load.plot([at], [percent], "o", color=_COLOURS["latency"], markersize=5)
        load.annotate(
            f"p{percent}  {at:.1f} ms",
            (at, percent),
            xytext=(8, -10),
            textcoords="offset points",
            color=INK,
        )
    load.set_ylim(0, 104)
    load.set_xlim(0, max(latencies) * 1.25)
    load.set_xlabel("ms from due to answered", color=INK)
    load.set_ylabel("% of requests", color=INK)
    _style(load, f"{report.load.rate:g} requests a second over HTTP")
    return figure


def _service_times(axes: "Axes", report: InferenceReport) -> None:
    names = [design.design for design in report.designs][::-1]
    times = [report.design(name).service_ms for name in names]
    axes.barh([TITLES[n] for n in names], times, color=[_COLOURS[n] for n in names], height=0.55)
    for index, value in enumerate(times):
        axes.annotate(
            f"{value:.2f} ms",
            (value, index),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_xlim(0, max(times) * 1.25)
    axes.set_xlabel("ms of the service for one prediction", color=INK)
    _style(axes, f"One prediction of {report.features} features")


def _style(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.tick_params(colors=INK, length=0)
    axes.grid(visible=True, axis="x", color="#8b949e", alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)


def _description(report: InferenceReport) -> str:
    told = [
        f"{TITLES[design.design]} takes {design.service_ms:.2f} ms of the service's time"
        for design in report.designs
    ]
    if report.load is not None:
        told.append(
            f"of {report.load.rate:g} requests a second over HTTP, 99 percent were answered "
            f"within {report.load.percentile_ms(99):.1f} ms"
        )
    return "; ".join(told) + "."
