"""How a table is written: its delimiter, and the line that its header begins in."""

from __future__ import annotations

import re
from collections.abc import Sequence

DELIMITERS = (",", ";", "\t", "|")
MOST_LINES = 50
"""Lines of a table that tell how it is written."""
_LEAST_LINES = 5
_SEP = re.compile(r'"?sep\s*=\s*(.)"?', re.IGNORECASE)


def delimiter_of(lines: Sequence[str]) -> str:
    """The delimiter that the header has, as often as the lines after it; of Excel's `sep=;` what that says."""
    first = next((line for line in lines if line.strip()), "")
    if named := _SEP.fullmatch(first.strip(" \r\n")):
        return named[1]
    return _delimiter(lines[header_at(lines) :])


def header_at(lines: Sequence[str]) -> int:
    """How many lines are before the header: empty ones, Excel's `sep=;`, and comments, which begin with #."""
    start = next((at for at, line in enumerate(lines) if line.strip() and not _is_sep(line)), 0)
    end = next((at for at, line in enumerate(lines[start:], start) if not line.startswith("#")), start)
    if end == start:
        return start
    delimiter = _delimiter(lines[end:])
    own, next_line = (bare(lines[at]).count(delimiter) for at in (end - 1, end))
    return end - 1 if own == next_line else end  # a header may begin with #, too


def title_lines(lines: Sequence[str]) -> int:
    """How many lines without a delimiter are above a table's header, such as the title of a report; 0 for none.

    A table is told by at least so many lines that have a delimiter equally often. A single line above them may be the
    name of a column whose texts hold a delimiter each.
    """
    for delimiter in DELIMITERS:
        counts = [bare(line).count(delimiter) for line in lines if line.strip()]
        tail = next((at for at, count in enumerate(reversed(counts)) if count != counts[-1]), len(counts))
        if counts and counts[-1] and tail >= _LEAST_LINES:
            first = [at for at, line in enumerate(lines) if line.strip()][len(counts) - tail]
            return first if first > 1 else 0
    return 0


def _is_sep(line: str) -> bool:
    return _SEP.fullmatch(line.strip(" \r\n")) is not None


def _delimiter(lines: Sequence[str]) -> str:
    counts = {each: [bare(line).count(each) for line in lines[:MOST_LINES] if line.strip()] for each in DELIMITERS}
    first = {each: found[0] if found else 0 for each, found in counts.items()}
    return max(DELIMITERS, key=lambda each: (first[each] and counts[each].count(first[each]), first[each]))


def bare(line: str) -> str:
    """The line without what is in quotes."""
    return re.sub(r'"[^"]*"', "", line)
