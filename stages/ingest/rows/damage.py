"""Signs that a text was once read in another encoding than it was written in."""

from __future__ import annotations

import re

_LOST = "\ufffd"
# UTF-8 read as Windows-1252 or Latin-1: A with tilde or circumflex and a character of the upper half (a u with dots
# has become two), or the beginning of a quotation mark or dash. Beyond Latin-1, the upper half of Windows-1252:
_BEYOND = "\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u2022\u2026\u2030\u2039"
_BEYOND += "\u203a\u20ac\u2122"
_UPPER = f"\u0080-\u00bf{_BEYOND}"
_MISREAD = re.compile(f"\u00c3[{_UPPER}]|\u00c2[\u00a0-\u00bf]|\u00e2\u20ac[{_UPPER}]")
_STARTS = tuple(each.encode() for each in (_LOST, "\u00c3", "\u00c2", "\u00e2\u20ac"))


def damage_of(line: bytes) -> str:
    """What the line has of it: a replacement character, or characters that one was made into; "" for nothing."""
    if not any(start in line for start in _STARTS):
        return ""
    text = line.decode(errors="replace")
    found = _MISREAD.search(text)
    return found.group() if found else _LOST if _LOST in text else ""
