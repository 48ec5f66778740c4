"""Training curves as SVG that takes the page's colours, so that it can be read in light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

# matplotlib wants real colours; these stand for the page's, which are put in their place afterwards.
_COLOURS = {"#010203": "var(--ink)", "#010204": "var(--muted)", "#010205": "var(--line)", "#010206": "var(--accent)",
            "#010207": "var(--other)"}  # fmt: skip
_INK, _MUTED, _LINE, _ACCENT, _OTHER = _COLOURS
_MAX_POINTS = 600
_INCHES = (4.6, 2.5)

Points = Sequence[tuple[float, float]]


def loss_curve(loss: Points, eval_loss: Points) -> str:
    """SVG of (step, loss): every value faintly, their running mean, and the evaluations' where there are any."""

    def draw(axes: Any) -> None:
        steps, values = zip(*thinned(loss), strict=True)
        smooth = running_mean(values)
        noisy = len(values) > 20
        if noisy:
            axes.plot(steps, values, color=_ACCENT, alpha=0.3, linewidth=1)
        axes.plot(steps, smooth if noisy else values, color=_ACCENT, linewidth=1.8, label="training")
        if eval_loss:
            axes.plot(*zip(*thinned(eval_loss), strict=True), "o-", color=_OTHER, markersize=3.5, label="evaluation")
            axes.legend(frameon=False, labelcolor=_INK)
        if min(values) > 0 and max(values) / min(values) > 30:
            axes.set_yscale("log")

    return _svg(draw, "loss")


def rate_curve(rate: Points) -> str:
    """SVG of (step, learning rate)."""
    return _svg(lambda axes: axes.plot(*zip(*thinned(rate), strict=True), color=_ACCENT, linewidth=1.8), "rate")


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


def _svg(draw: Callable[[Any], Any], name: str) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # ids must differ between the drawings of a page, and not between two writings of it
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _MUTED,
        "axes.edgecolor": _LINE,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
    }
    with rc_context(settings):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_xlabel("step")
        axes.grid(color=_LINE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), name)


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
