"""How far a stage is, in words."""

from __future__ import annotations

from typing import Any

from runner.text import count_text, duration_text, plural, rate_text, size_text

_OWN = ("done", "total", "unit", "rate_per_s", "seconds_left", "state")


def progress_parts(event: dict[str, Any]) -> list[str]:
    """Parts of a progress event (see `Pace.measured`), the most important first: `37/64 steps`, `48 s left`, ..."""
    parts = [_done(event), event.get("state") or ""]
    if event.get("seconds_left") is not None:
        parts.append(f"{duration_text(event['seconds_left'])} left")
    if event.get("rate_per_s"):
        parts.append(rate_text(event["rate_per_s"], event["unit"]))
    parts += [_figure(name, value) for name, value in event.items() if name not in _OWN and value is not None]
    return [part for part in parts if part]


def progress_text(event: dict[str, Any]) -> str:
    """One line of a progress event: `37/64 steps  48 s left  1.9 steps/s  loss 0.41`."""
    return "  ".join(progress_parts(event))


def _done(event: dict[str, Any]) -> str:
    done, total, unit = event["done"], event["total"], event["unit"]
    if unit == "s" and total is None:
        return ""  # it only waits; the elapsed time is shown anyway
    if unit == "bytes":
        return size_text(done) if total is None else f"{size_text(done)} of {size_text(total)}"
    return count_text(done, unit) if total is None else f"{done:,g}/{total:,g} {plural(unit)}"


def _figure(name: str, value: Any) -> str:
    """loss=0.41 -> loss 0.41; rows_per_s=120 -> 120 rows/s; first_row_s=0.2 -> first row 0.2 s."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name.replace('_', ' ')} {value}"
    if name.endswith("_per_s"):
        return rate_text(value, name.removesuffix("_per_s").replace("_", " ")) if value else ""
    if name.endswith("_s"):
        return f"{name.removesuffix('_s').replace('_', ' ')} {duration_text(value)}"
    return f"{name.replace('_', ' ')} {value:.4g}"
