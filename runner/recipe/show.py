"""The resolved recipe as a file that can be run again, with the origin of every value next to it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from runner.recipe.extension import extension
from runner.recipe.load import RECIPES_DIR, Composed, flatten, redact
from runner.recipe.schema import Recipe

DEFAULT = "default"
_WIDEST = 60  # columns before the origin; a longer line pushes its own origin to the right
# Text that YAML, whoever reads it, takes for nothing but text. Everything else is quoted.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|y|n|null)\Z)[a-z_/][a-z0-9_./-]*", re.IGNORECASE)
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def shown_values(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe as plain values, redacted, which mean the same when they are read as a recipe again."""
    values: dict[str, Any] = redact(recipe.model_dump(mode="json"))
    extension().as_given(values)
    return values


def value_origins(values: dict[str, Any], composed: Composed) -> dict[str, str]:
    """Dotted key of every leaf -> `file:line`, the override, or `default` (of the schema)."""
    known = composed.origins

    def origin(key: str) -> str:
        return known.get(key) or known.get(extension().inherits(key)) or DEFAULT

    return {key: origin(key) for key, _ in flatten(values)}


def as_yaml(recipe: Recipe, composed: Composed) -> str:
    """A recipe file that holds every value, so that running it needs no group; the origins are comments."""
    values = shown_values(recipe)
    origins = value_origins(values, composed)
    lines = list(_lines(values, "", ""))
    width = max((len(text) for text, key in lines if key and len(text) <= _WIDEST), default=0)
    body = [f"{text:<{width}}  # {origins[key]}" if key in origins else text for text, key in lines]
    groups = [f"  - override /{group}: null" for group in _groups()]
    return "\n".join(["# @package _global_", f"# {recipe.name}, resolved", "defaults:", *groups, *body, ""])


def _groups() -> list[str]:
    """The groups that every recipe starts from, as `recipes/config.yaml` lists them."""
    defaults = yaml.safe_load((RECIPES_DIR / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = [next(iter(entry.items())) for entry in defaults if isinstance(entry, dict)]
    return [name for name, variant in chosen if variant is not None and not name.startswith("override ")]


def _lines(values: dict[str, Any], indent: str, prefix: str) -> Iterator[tuple[str, str]]:
    """(line, dotted key of the leaf that it holds, or "")."""
    for name, value in values.items():
        dotted = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict) and value:
            yield f"{indent}{_text(name)}:", ""
            yield from _lines(value, f"{indent}  ", dotted)
        else:
            yield f"{indent}{_text(name)}: {_text(value)}", dotted


class _Dumper(yaml.SafeDumper):
    """Quotes text that any YAML reader, or Hydra, could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    escaped = _INTERPOLATION.sub(r"\1\1\\${", text)
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped, style=style)


_Dumper.add_representer(str, _represent_text)


def _text(value: Any) -> str:
    """The value as YAML on one line."""
    dumped = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=sys.maxsize)
    return dumped.removesuffix("...\n").removesuffix("\n")
