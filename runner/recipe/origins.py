"""Where each value of a composed recipe was written: the file and line of a group or recipe, or the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.recipe.hydra.overrides import parsed
from runner.recipe.secrets import redact_override

_MERGE = "tag:yaml.org,2002:merge"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def trace(
    loader: Any, overrides: Sequence[str], labels: Sequence[str], find: Callable[[str], tuple[Path, str] | None]
) -> dict[str, str]:
    """Dotted key -> `file:line` or the override that set it; the later one where several did.

    loader: Hydra's config loader. overrides: as Hydra was given them. labels: what to call each of them. find: the file
    of a `group/variant`, and what it is called: `recipes/model/qwen.yaml`.
    """
    from hydra.types import RunMode

    origins = _Origins()
    for default in loader.compute_defaults_list("config", list(overrides), RunMode.RUN).defaults:
        found = find(default.config_path or "")
        if found is not None and not str(default.config_path).startswith("hydra"):
            for key, line in key_lines(found[0]):
                if key.partition(".")[0].partition("[")[0] != "defaults":
                    origins.set(f"{default.package}.{key}".lstrip("."), f"{found[1]}:{line}")
    for label, override in zip(labels, parsed(overrides), strict=True):
        key = override.get_key_element().lstrip("+~").split("@")[0]
        if not key.startswith("hydra"):
            for inner in leaf_keys(override.value() if not override.is_delete() else None, key):
                origins.set(inner, redact_override(label))
    return origins.by_key


def key_lines(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted key, line from 1) of every leaf of a YAML file and of every item of a list; lists are leaves too."""
    node = yaml.compose(file.read_text(encoding="utf-8-sig"), Loader=_Loader)
    if node is not None:
        yield from _lines(node, "", 1, [])


def _lines(node: yaml.Node, prefix: str, line: int, above: list[yaml.Node]) -> Iterator[tuple[str, int]]:
    if node in above:
        return  # an alias to what holds it; whoever composed the file has refused that
    above = [*above, node]
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in sorted(node.value, key=lambda pair: pair[0].tag != _MERGE):  # what is merged in yields
            if key.tag == _MERGE:
                for merged in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                    yield from _lines(merged, prefix, line, above)
            else:
                dotted = f"{prefix}.{key.value}" if prefix else str(key.value)
                yield from _lines(value, dotted, key.start_mark.line + 1, above)
        return
    yield prefix, line
    if isinstance(node, yaml.SequenceNode):
        yield from ((f"{prefix}[{index}]", item.start_mark.line + 1) for index, item in enumerate(node.value))


def leaf_keys(value: Any, key: str) -> Iterator[str]:
    """Keys of an override's value: of each leaf of a mapping."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaf_keys(item, f"{key}.{name}")
    else:
        yield key


class _Origins:
    """Origins by key; a later one takes the place of those before it."""

    def __init__(self) -> None:
        self.by_key: dict[str, str] = {}
        self._items: dict[str, list[str]] = {}  # keys of a list's items, by that of the list

    def set(self, key: str, origin: str) -> None:
        of_list, bracket, _ = key.partition("[")
        if bracket:
            self._items.setdefault(of_list, []).append(key)
        else:  # a list replaces the one before it, whatever the length
            for item in self._items.pop(key, ()):
                self.by_key.pop(item, None)
        for at in (at for at, character in enumerate(key) if character == "."):
            self.by_key.pop(key[:at], None)  # a value that a mapping has replaced
        self.by_key[key] = origin
