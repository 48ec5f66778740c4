"""Limits of a recipe file, looked at before anything makes objects of it.

An alias in YAML costs a few bytes, and whoever copies what it stands for copies it whole: ten lines of ten aliases
each are ten billion values. Deep nesting ends in a stack overflow.
"""

from __future__ import annotations

import yaml

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 64


def why_refused(text: str) -> str:
    """What is too large or too deep in the text of a YAML file, or "". Raises YAMLError for text that is not YAML."""
    sizes: dict[str, int] = {}  # anchor -> values that an alias to it stands for
    above: list[tuple[str | None, int]] = []  # of each open collection: its anchor, values so far
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
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
