"""Differences between two texts, token by token."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_MAX_TOKENS = 600  # the comparison takes quadratic time

Pieces = list[tuple[bool, str]]


def difference(expected: str, found: str) -> tuple[Pieces, Pieces]:
    """Each text as pieces (differs, text) in order: what the other one has too, and what it has not.

    Tokens are words, runs of white space and single other characters. Very long texts are compared as a whole.
    """
    one, other = _TOKEN.findall(expected), _TOKEN.findall(found)
    if max(len(one), len(other)) > _MAX_TOKENS:
        differs = expected != found
        return [(differs, expected)], [(differs, found)]
    left: Pieces = []
    right: Pieces = []
    for tag, start, end, other_start, other_end in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for pieces, text in ((left, one[start:end]), (right, other[other_start:other_end])):
            if text:
                pieces.append((tag != "equal", "".join(text)))
    return left, right
