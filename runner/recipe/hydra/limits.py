"""Limits of a recipe file, looked at before anything makes objects of it.

An alias in YAML costs a few bytes, and whoever copies what it stands for copies it whole: ten lines of ten aliases
each are ten billion values. Deep nesting ends in a stack overflow.
"""

from __future__ import annotations

import re

import yaml

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 64
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What YAML 1.1 reads in base 8 or 60, and a person as it stands there.
_ODD_NUMBER = re.compile(r"[-+]?(0[0-7_]*[0-7]|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")

_PART_OF_ODD = re.compile(r"(?<![\w.])0[0-7_]|[0-9_]:[0-5]?[0-9]")  # without it a text has none, and need not be parsed


def why_refused(text: str) -> str:
    """What is too large or too deep in the text of a YAML file, or "". Raises YAMLError for text that is not YAML."""
    sizes: dict[str, int] = {}  # anchor -> values that an alias to it stands for
    above: list[tuple[str | None, int]] = []  # of each open collection: its anchor, values so far
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            above.append((event.anchor, 1))
            if len(above) > MAX_DEPTH:
                return f"is nested more than {MAX_DEPTH} levels deep"
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = above.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if above:
            above[-1] = (above[-1][0], above[-1][1] + size)
        if size > MAX_VALUES or (above and above[-1][1] > MAX_VALUES):
            return f"stands for more than {MAX_VALUES} values, with its aliases written out"
    return ""


def odd_number(text: str) -> str:
    """The first value that YAML reads as another number than stands there, such as 010 or 1:30, and its line; or ""."""
    for event in yaml.parse(text, Loader=_LOADER) if _PART_OF_ODD.search(text) else ():
        if not isinstance(event, yaml.ScalarEvent) or not event.implicit[0] or not event.value.strip("+-0_"):
            continue
        if _ODD_NUMBER.fullmatch(event.value):
            number = yaml.load(event.value, Loader=_LOADER)  # noqa: S506 (a number, by the safe loader)
            line = event.start_mark.line + 1 if event.start_mark else 1
            return f"has {event.value} in line {line}, which YAML reads as the number {number}"
    return ""
