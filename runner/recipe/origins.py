"""Where each value of a composed recipe was written: the file and line of a group or recipe, or the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.recipe.hydra.errors import COMMAND_LINE
from runner.recipe.secrets import redact_override

_MERGE = "tag:yaml.org,2002:merge"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def trace(loader: Any, overrides: list[str], roots: Sequence[tuple[Path, str]]) -> dict[str, str]:
    """Dotted key -> `file:line` or the override that set it; the later one where several did.

    loader: Hydra's config loader. overrides: as Hydra was given them. roots: config folders in order of search, each
    with what its files are called: `recipes` gives `recipes/model/qwen.yaml:3`.
    """
    from hydra.types import RunMode

    origins: dict[str, str] = {}
    for default in loader.compute_defaults_list("config", overrides, RunMode.RUN).defaults:
        path = f"{default.config_path}.yaml"
        root = next((root for root in roots if (root[0] / path).is_file()), None)
        if default.config_path is not None and not path.startswith("hydra") and root is not None:
            for key, line in key_lines(root[0] / path):
                if key.partition(".")[0].partition("[")[0] != "defaults":
                    _set(origins, f"{default.package}.{key}".lstrip("."), f"{root[1]}/{path}:{line}")
    for text, override in zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True):
        key = override.get_key_element().lstrip("+~").split("@")[0]
        if not key.startswith("hydra"):
            origin = f"{COMMAND_LINE}: {redact_override(text.lstrip('+'))}"
            for inner in _keys(override.value() if not override.is_delete() else None, key):
                _set(origins, inner, origin)
    return origins


def key_lines(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted key, line from 1) of every leaf of a YAML file and of every item of a list; lists are leaves too."""
    node = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
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


def _keys(value: Any, key: str) -> Iterator[str]:
    """Keys of an override's value: of each leaf of a mapping."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _keys(item, f"{key}.{name}")
    else:
        yield key


def _set(origins: dict[str, str], key: str, origin: str) -> None:
    if "[" not in key:  # a list replaces the one before it, whatever the length
        for item in [each for each in origins if each.startswith(f"{key}[")]:
            del origins[item]
    origins[key] = origin
