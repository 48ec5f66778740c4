"""Sizes, durations and counts as people write them: one text for the terminal, the notes of stages and the pages."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """Bytes in binary units: 512 B, 3.4 MiB, 1.2 TiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size_bytes < 1024 or unit == "TiB":
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Seconds as a person writes them: 0.25 s, 3.4 s, 48 s, 3 min 5 s, 1 h 12 min, 2 d 3 h."""
    if seconds < 0.995:
        return f"{seconds:.2g} s" if seconds >= 0.005 else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part_size
            return f"{whole // size} {unit} {rest} {part}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def count_text(count: float, unit: str, units: str | None = None) -> str:
    """A number with its unit in the right form: 1 step, 2 steps, 1,200 rows.

    units: of several, where they are more than `plural` knows: ("row is", "rows are").
    """
    number = f"{count:,g}" if count < 1e6 else f"{count:,.0f}"
    one, many = (unit, units) if units else (singular(unit), plural(unit))
    return f"{number} {one if count == 1 else many}"


def plural(unit: str) -> str:
    """row -> rows, batch -> batches, class -> classes; what is plural already remains."""
    if unit.endswith(("ss", "ch", "sh", "x")):
        return f"{unit}es"
    return unit if unit.endswith("s") else f"{unit}s"


def singular(unit: str) -> str:
    """rows -> row; class and s (a second) remain."""
    return unit if unit == "s" or unit.endswith("ss") else unit.removesuffix("s")


def rate_text(per_s: float, unit: str) -> str:
    """Units a second, or the time of one where that reads better: 1.9 steps/s, 12 s/step, 3.4 MiB/s."""
    if unit == "bytes":
        return f"{size_text(per_s)}/s"
    if per_s >= 0.5:
        return f"{per_s:,.0f} {plural(unit)}/s" if per_s >= 10 else f"{per_s:.1f} {plural(unit)}/s"
    return f"{duration_text(1 / per_s)}/{singular(unit)}"
