"""Which script a text is written in, by the blocks of Unicode that its letters are in. Scripts, not languages."""

from __future__ import annotations

from bisect import bisect
from collections import Counter

MOST_CHARS = 200
"""Characters of a text that are looked at."""
_STARTS = (
    (0x0041, "Latin"), (0x0250, ""), (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"), (0x0590, "Hebrew"),
    (0x0600, "Arabic"), (0x0780, ""), (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"), (0x0B00, ""), (0x0B80, "Tamil"), (0x0C00, "Telugu"), (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"), (0x0D80, "Sinhala"), (0x0E00, "Thai"), (0x0E80, "Lao"), (0x0F00, "Tibetan"),
    (0x1000, "Burmese"), (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, ""),
    (0x1780, "Khmer"), (0x1800, "Mongolian"), (0x18B0, ""), (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""),
    (0x3040, "Kana"), (0x3100, ""), (0x3130, "Hangul"), (0x3190, ""), (0x3400, "Han"), (0xA000, ""),
    (0xAC00, "Hangul"), (0xD7B0, ""), (0xF900, "Han"), (0xFB00, ""), (0x20000, "Han"), (0x32000, ""),
)  # fmt: skip
"""Where the letters of a script begin."""
_EDGES = [start for start, _ in _STARTS]


def script_of(text: str) -> str:
    """The script of most letters; Kana where there are some among Han; "" without a letter."""
    counts = Counter(_STARTS[at - 1][1] for each in text if (at := bisect(_EDGES, ord(each))) and each.isalpha())
    if counts["Kana"]:
        return "Kana and Han"
    counts.pop("", None)
    return max(counts, key=lambda script: (counts[script], script), default="")
