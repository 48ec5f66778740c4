"""What recipe values mean to a result, for fingerprints: no arguments without effect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The mapping without these keys."""
    return {name: value for name, value in values.items() if name not in names}
