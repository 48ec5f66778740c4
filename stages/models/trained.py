"""What a training will leave, in words that every engine understands: its trainer says so before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

TraitName = Literal["whole modules", "new embeddings", "dora", "changed base", "sight"]


@dataclass(frozen=True)
class Trait:
    """Something about an adapter that an engine may refuse. key, value: what in the recipe asks for it.

    sight: it changes what sees the images as well, and not the language model alone.
    """

    name: TraitName
    key: str
    value: Any


@dataclass(frozen=True)
class Trained:
    """kind: what is saved. key, value: what in the recipe says so. traits: of an adapter."""

    kind: Literal["adapter", "model"]
    key: str
    value: Any
    traits: tuple[Trait, ...] = field(default=())


@dataclass(frozen=True)
class LongestRow:
    """The most tokens of a row that is trained on. key: what in the recipe sets it."""

    tokens: int
    key: str
