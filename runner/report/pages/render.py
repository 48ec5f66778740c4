"""Templates to text: everything that comes from data is escaped, and the page can load and run nothing but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from runner.report.pages.charts import drawn
from runner.report.pages.parts import StagePart
from runner.text import duration_text, size_text

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, facts: Mapping[str, Any], folder: Path | None = None) -> str:
    """The template filled with the facts. folder: where it is looked for before this package's templates."""
    text: str = _environment(folder or _TEMPLATES).get_template(template).render(**facts)
    return text


def render_part(each: StagePart, suffix: str, drawings: Path) -> str:
    """A stage's part as HTML (suffix "html") or Markdown ("md"); "" when it has no templates."""
    part = each.part
    if part.templates is None:
        return ""
    charts = drawn(part.charts, drawings) if suffix == "html" else {}
    return render(f"page.{suffix}.j2", {**part.facts, "charts": _marked(charts)}, part.templates)


def _marked(drawings: Mapping[str, str]) -> dict[str, Any]:
    from markupsafe import Markup

    return {name: Markup(svg) for name, svg in drawings.items()}  # noqa: S704 - matplotlib's, with labels escaped


@cache
def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([folder, _TEMPLATES]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        style=Markup(style),  # noqa: S704 - files of this package
        script=Markup(script),  # noqa: S704
        # Nothing is loaded, and no script runs but the page's own: what a model wrote stays text.
        policy="default-src 'none'; base-uri 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
    )
    environment.filters.update(
        share=share, signed=signed, seconds=duration_text, size=size_text, moment=moment, p=p_value, words=words,
        cell=cell, plain=plain, markup=Markup, figure=figure,
    )  # fmt: skip
    return environment


def share(value: float | None) -> str:
    """0.8765 -> 0.877."""
    return "-" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def figure(value: float | None) -> str:
    """A number of unknown size in a few digits, those of a column below each other: 0.850, 0.855, 1,240."""
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 or value == 0 else f"{value:,.4g}"


def moment(timestamp: float) -> str:
    """Unix time as local date and time with the zone's offset."""
    return time.strftime("%Y-%m-%d %H:%M %z", time.localtime(timestamp)) if timestamp else "-"


def p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def words(name: str) -> str:
    """exact_match -> exact match."""
    return name.replace("_", " ")


def cell(text: Any) -> str:
    """Text for a cell of a Markdown table: one line, no markup, no HTML."""
    flat = " ".join(str(text).split())
    for char in "\\`*_|[]":
        flat = flat.replace(char, f"\\{char}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(value: Any) -> str:
    """A recipe's value: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
