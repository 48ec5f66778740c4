"""Meaning representations such as `inform(name[BioShock], genres[shooter, role-playing])`, and metrics over them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(r"\w+")
_OPENING, _CLOSING = "[(", "])"
NO_FUNCTION = "(no function)"


@dataclass(frozen=True)
class Meaning:
    """A function and its attributes in order, each with the text between its brackets (None: it has no brackets)."""

    function: str
    attributes: tuple[tuple[str, str | None], ...]

    def __str__(self) -> str:
        parts = (name if value is None else f"{name}[{value}]" for name, value in self.attributes)
        return f"{self.function}({', '.join(parts)})"


@lru_cache(maxsize=64)
def parse(text: str) -> Meaning | None:
    """`function(attribute[value], ...)`, or None for any other text. White space around the parts is ignored.

    A value may hold commas and balanced brackets and parentheses: `esrb[E 10+ (for Everyone 10 and Older)]`.
    """
    text = text.strip()
    function = _NAME.match(text)
    if function is None or not text.startswith("(", function.end()) or not text.endswith(")"):
        return None
    inside = text[function.end() + 1 : -1]
    parts = _split(inside)
    if parts is None:
        return None
    attributes = [_attribute(part) for part in parts] if inside.strip() else []
    if None in attributes:
        return None
    return Meaning(function.group(), tuple(each for each in attributes if each is not None))


def _split(text: str) -> list[str] | None:
    """The text at its commas outside of brackets; None when the brackets are not balanced."""
    parts, start, open_ = [], 0, []
    for index, char in enumerate(text):
        if char in _OPENING:
            open_.append(char)
        elif char in _CLOSING:
            if not open_ or _OPENING.index(open_.pop()) != _CLOSING.index(char):
                return None
        elif char == "," and not open_:
            parts.append(text[start:index])
            start = index + 1
    return None if open_ else [*parts, text[start:]]


def _attribute(text: str) -> tuple[str, str | None] | None:
    text = text.strip()
    name = _NAME.match(text)
    if name is None:
        return None
    if name.end() == len(text):
        return name.group(), None
    if text[name.end()] != "[" or text[-1] != "]":
        return None
    value = text[name.end() + 1 : -1]
    return (name.group(), value) if _split(value) is not None else None


@lru_cache(maxsize=64)
def _values(meaning: Meaning | None) -> Counter[tuple[str, str | None]]:
    """How often each pair of attribute and value is there; a value of several, `[PC, Xbox]`, is one pair for each."""
    pairs: Counter[tuple[str, str | None]] = Counter()
    for name, value in meaning.attributes if meaning else ():
        parts = _split(value) if value is not None else None
        pairs.update((name, part.strip()) for part in parts) if parts else pairs.update([(name, value)])
    return pairs


def function_of(text: str) -> str:
    """The function of a meaning representation (`inform` of `inform(name[...])`), "(no function)" for other texts."""
    meaning = parse(text)
    return meaning.function if meaning else NO_FUNCTION


def exact_match_unordered(prediction: str, reference: str) -> float:
    """1 for the same function with the same attributes and values, in any order; other texts must be the same."""
    if prediction == reference:
        return 1.0
    meaning, expected = parse(prediction), parse(reference)
    if meaning is None or expected is None:
        return 0.0
    return float(meaning.function == expected.function and _values(meaning) == _values(expected))


def parse_rate(prediction: str, reference: str) -> float:
    """1 when the prediction is a meaning representation at all."""
    return float(parse(prediction) is not None)


def function_accuracy(prediction: str, reference: str) -> float:
    """1 when the prediction is a meaning representation with the reference's function."""
    meaning, expected = parse(prediction), parse(reference)
    return float(meaning is not None and expected is not None and meaning.function == expected.function)


def attribute_precision(prediction: str, reference: str) -> tuple[float, float]:
    """Pairs of attribute and value that the reference has too, of those predicted."""
    predicted, expected = _values(parse(prediction)), _values(parse(reference))
    return (predicted & expected).total(), predicted.total()


def attribute_recall(prediction: str, reference: str) -> tuple[float, float]:
    """Pairs of attribute and value that were predicted, of those in the reference."""
    predicted, expected = _values(parse(prediction)), _values(parse(reference))
    return (predicted & expected).total(), expected.total()


def attribute_f1(prediction: str, reference: str) -> tuple[float, float]:
    """Harmonic mean of the two above, over all rows' pairs (micro average)."""
    predicted, expected = _values(parse(prediction)), _values(parse(reference))
    return 2 * (predicted & expected).total(), predicted.total() + expected.total()
