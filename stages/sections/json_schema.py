"""What a JSON schema of a recipe or a request refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = ("$ref", "$dynamicRef", "$recursiveRef")


def references_outside(schema: Any) -> Iterator[str]:
    """The targets of references that lead out of the schema, which nothing here fetches."""
    left = [schema]
    while left:
        each = left.pop()
        if isinstance(each, Mapping):
            found = [each[name] for name in _NAMES if name in each]
            yield from (target for target in found if isinstance(target, str) and not target.startswith("#"))
            left += each.values()
        elif isinstance(each, list):
            left += each
