"""Charts as SVG that takes the page's colours, so that it can be read in light and dark mode."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner.pipeline.results import Chart, Points, Series
from runner.storage.atomic import write_text
from runner.storage.digest import digest_file, digest_json

# matplotlib wants real colours; these stand for the page's, which are put in their place afterwards.
_COLOURS = {"#010203": "var(--ink)", "#010204": "var(--muted)", "#010205": "var(--line)", "#010206": "var(--accent)",
            "#010207": "var(--other)", "#010208": "var(--third)", "#010209": "var(--fourth)",
            "#01020a": "var(--fifth)"}  # fmt: skip
_INK, _MUTED, _LINE, *_LINES = _COLOURS
_MAX_POINTS = 600
_INCHES = (4.6, 2.5)
_LOG_RATIO = 30


def drawn(charts: Mapping[str, Chart], folder: Path) -> dict[str, str]:
    """The charts as SVG, drawn now or before.

    folder: keeps them for the next page of the same lines; loading matplotlib takes half a second.
    """
    return {name: _kept(folder, name, chart) for name, chart in charts.items()}


def _kept(folder: Path, name: str, chart: Chart) -> str:
    path = folder / f"{name}-{digest_json([digest_file(Path(__file__)), asdict(chart)])[:16]}.svg"
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    svg = draw(chart, name)
    write_text(path, svg)
    return svg


def draw(chart: Chart, name: str) -> str:
    """SVG of the chart. name: no two drawings of a page may have the same."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells the terminal when it looks for fonts
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(_settings(name)):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        for number, series in enumerate(chart.series):
            _plot(axes, series, _LINES[number % len(_LINES)])
        if len(chart.series) > 1 or chart.named:
            axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
        values = [value for series in chart.series for _, value in series.points]
        if values and min(values) > 0 and max(values) / min(values) > _LOG_RATIO:
            axes.set_yscale("log")
        axes.set_xlabel(chart.x)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(color=_LINE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), name)


def _plot(axes: Any, series: Series, colour: str) -> None:
    steps, values = zip(*thinned(series.points), strict=True)
    if series.style == "points":
        axes.plot(steps, values, "o-", color=colour, markersize=3.5, label=series.label)
        return
    smooth = series.style == "smooth" and len(values) > 20
    if smooth:
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
    axes.plot(steps, running_mean(values) if smooth else values, color=colour, linewidth=1.8, label=series.label)


def thinned(points: Points) -> Points:
    """At most 600 of the points, evenly spread, the last among them."""
    step = -(-len(points) // _MAX_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the values, corrected at its start (as Adam's moments are)."""
    keep = 1 - min(1.0, 20 / max(len(values), 1))
    mean, means = 0.0, []
    for count, value in enumerate(values, 1):
        mean = keep * mean + (1 - keep) * value
        means.append(mean / (1 - keep**count))
    return means


def _settings(name: str) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # ids must differ between the drawings of a page, and not between two writings of it
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _MUTED,
        "axes.edgecolor": _LINE,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
    }


def _for_page(svg: str, name: str) -> str:
    """The drawing alone: no prolog and metadata, as wide as its place, in the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", svg)
    svg = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
