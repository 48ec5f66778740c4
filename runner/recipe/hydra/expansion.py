"""How much text a configuration's interpolations stand for, before any of them is resolved.

`a1: ${a0}${a0}`, `a2: ${a1}${a1}` and so on double with each line, and resolving them takes as long as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from runner.errors import Problem

MOST_CHARS = 4_000_000
_BRACES = re.compile(r"\$\{|\}")
_UNKNOWN = MOST_CHARS + 1  # of what could be anything
_HINT = "Write the value where it is needed, or refer to it less often."


def too_much(values: Any) -> Problem | None:
    """The problem of the value whose interpolations stand for more than MOST_CHARS, or of all together.

    values: plain ones, not resolved.
    """
    try:
        sizes = _Sizes(values)
        if sizes.of(()) <= MOST_CHARS:
            return None
    except RecursionError:
        return Problem("", None, "has a chain of interpolations that is too long", _HINT)
    key = next((key for key, size in sizes.known.items() if size > MOST_CHARS and isinstance(sizes.at(key), str)), ())
    whose = "its interpolations" if key else "its interpolations together"
    return Problem(".".join(key), None, f"stands for more than {MOST_CHARS:,} characters by {whose}", _HINT)


class _Sizes:
    """Sizes of values by their keys; each is computed once. Keys are taken as texts."""

    def __init__(self, values: Any) -> None:
        self._values = _with_text_keys(values)
        self.known: dict[tuple[str, ...], int] = {}

    def of(self, path: tuple[str, ...]) -> int:
        """The size of what is at the path; 0 where nothing is, and for a value that refers to itself."""
        if path not in self.known:
            self.known[path] = 0  # while it is computed: Hydra tells of a reference to itself
            self.known[path] = min(self._computed(path), _UNKNOWN)
        return self.known[path]

    def _computed(self, path: tuple[str, ...]) -> int:
        node = self.at(path)
        if isinstance(node, dict | list):
            names = node if isinstance(node, dict) else range(len(node))
            return 1 + sum(self.of((*path, str(name))) for name in names)
        if not isinstance(node, str):
            return 1
        return len(node) + sum(self._reference(inner, path) for inner in _references(node))

    def _reference(self, text: str, path: tuple[str, ...]) -> int:
        """The size of what `${text}` stands for in the value at the path."""
        nested = list(_references(text))
        inner = sum(self._reference(each, path) for each in nested)
        name, colon, arguments = text.partition("${")[0].partition(":")
        if not colon:
            above = self._path(name, path)
            return inner + self.of(above[:-1] if nested else above)
        if name.strip() in ("oc.select", "oc.dict.keys", "oc.dict.values", "oc.deprecated"):
            return inner + (_UNKNOWN if nested else self.of(self._path(arguments.partition(",")[0].strip(), path)))
        built = name.strip() in ("oc.decode", "oc.create") and any(not each.startswith("oc.env:") for each in nested)
        return _UNKNOWN if built and not _is_literal(text) else inner

    def _path(self, name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """Keys of a reference, from the root; `.a` is next to the value, `..a` a level higher."""
        dots = len(name) - len(name.lstrip("."))
        below = tuple(name.lstrip(".").replace("[", ".").replace("]", "").split("."))
        return (*path[: max(len(path) - dots, 0)], *below) if dots else below

    def at(self, path: tuple[str, ...]) -> Any:
        """What is at the path; None where nothing is."""
        node = self._values
        for name in path:
            if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            elif isinstance(node, dict):
                node = node.get(name)
            else:
                return None
        return node


def _with_text_keys(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _with_text_keys(value) for key, value in values.items()}
    return [_with_text_keys(each) for each in values] if isinstance(values, list) else values


def _is_literal(text: str) -> bool:
    """Whether a text to be decoded has its references in full, and does not put them together."""
    outside = "".join(piece for piece, inside in _pieces(text) if not inside)
    return "{" not in outside and "$" not in outside


def _references(text: str) -> Iterator[str]:
    """What is between `${` and its `}`, of the outermost ones."""
    return (piece for piece, inside in _pieces(text) if inside)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and whether each is what stands within `${...}`."""
    start, depth = 0, 0
    for found in _BRACES.finditer(text):
        if found[0] == "${":
            if not depth:
                yield text[start : found.start()], False
                start = found.end()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                yield text[start : found.start()], True
                start = found.end()
    yield text[start:], False
