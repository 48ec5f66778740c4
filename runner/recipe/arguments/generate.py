"""Writes a library's tables from the installed library: `make known-keys`. As a program, those of Ray."""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib.metadata
import json
import operator
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from runner.patches import ray_options
from runner.recipe.arguments import RAY, Library

Entry = dict[str, Any]
Section = dict[str, Any]
Tables = dict[str, Any]

_SIMPLE = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
_LISTS = (list, tuple, set, frozenset)
_BOUNDS = ("gt", "ge", "lt", "le")

_NOT_SETTINGS = {"version", "return"}  # hints of ray.serve.deployment that are not settings
# What RuntimeEnv's documentation allows beyond its type hints: a requirements file, or packages with options.
_RUNTIME_ENV: dict[str, Entry] = {"pip": {"type": "dict|list|str"}, "uv": {"type": "dict|list|str"}}


def ray_tables() -> Tables:
    """`autoscaling`: AutoscalingConfig. `deployment`: options of ray.serve.deployment. `runtime_env`: its fields."""
    import ray.serve
    from ray.runtime_env import RuntimeEnv
    from ray.serve.config import AutoscalingConfig

    config = pydantic_table(ray_options.deployment_class())
    deployment = {}
    for name, hint in get_type_hints(ray.serve.deployment, include_extras=True).items():
        if name in _NOT_SETTINGS or name.startswith("_"):
            continue
        deployment[name] = config.get(name) or entry_of(ray_options.without_default(hint))
    deployment["num_replicas"] = {"type": "int|str|null", "default": 1, "ge": 0}  # a number, or "auto"
    hints = get_type_hints(RuntimeEnv.__init__)
    names = sorted(name.lstrip("_") for name in RuntimeEnv.known_fields - RuntimeEnv.extensions_fields)
    return {
        "versions": {"ray": version_of("ray")},
        "autoscaling": pydantic_table(AutoscalingConfig),
        "deployment": deployment,
        "runtime_env": {name: entry_of(hints.get(name, Any)) | _RUNTIME_ENV.get(name, {}) for name in names},
    }


def dataclass_table(cls: type, *, closed_enums: bool = False) -> Section:
    hints = _hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if field.init and not field.name.startswith("_"):
            entry = entry_of(hints[field.name], field.default, closed_enums=closed_enums)
            if choices := field.metadata.get("choices"):
                entry |= {"choices": sorted(choices)}
                entry["type"] = "|".join(kind for kind in entry["type"].split("|") if kind != "str")
            if "commas to separate" in str(field.metadata.get("help", "")):
                entry["type"] += "|list"  # a text is split; most of these take a list as it is
            found[field.name] = entry
    return found


def _hints(cls: type) -> dict[str, Any]:
    """Type hints of the class; names that exist for type checkers only count as Any."""
    names: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(cls, localns=names, include_extras=True)
        except NameError as error:
            names[str(error.name)] = Any


def pydantic_table(model: Any) -> Section:
    return {
        name: entry_of(info.annotation, info.default, closed_enums=True) | bounds_of(info.metadata)
        for name, info in model.model_fields.items()
    }


def entry_of(hint: Any, default: Any = dataclasses.MISSING, *, closed_enums: bool = False) -> Entry:
    """The entry of an argument, as `runner.recipe.arguments.Entry` says.

    closed_enums: `Enum | str` means one of the enum's values, and not any text.
    """
    found = _describe(hint)
    kinds, choices = found.kinds, found.choices
    if default is None:
        kinds |= {"null"}
    if found.enum and closed_enums:
        kinds -= {"str"}
    choices = [choice for choice in choices if _SIMPLE[type(choice)] not in kinds]
    entry: Entry = {"type": "any" if "any" in kinds else "|".join(sorted(kinds))} if kinds else {}
    default = default.value if isinstance(default, enum.Enum) else default
    if isinstance(default, bool | int | float | str | None):
        entry["default"] = default
    if choices and "any" not in kinds:
        entry["choices"] = choices
        if found.ignore_case:
            entry["ignore_case"] = True
    return entry | found.bounds


@dataclasses.dataclass
class _Description:
    """What a type hint allows: any value of these kinds, or one of these choices."""

    kinds: set[str] = dataclasses.field(default_factory=set)
    choices: list[Any] = dataclasses.field(default_factory=list)
    bounds: Entry = dataclasses.field(default_factory=dict)
    enum: bool = False
    ignore_case: bool = False

    def __or__(self, other: _Description) -> _Description:
        return _Description(
            self.kinds | other.kinds,
            self.choices + other.choices,
            self.bounds | other.bounds,
            self.enum or other.enum,
            self.ignore_case or other.ignore_case,
        )


def _describe(hint: Any) -> _Description:
    origin, members = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _describe(members[0]) | _Description(bounds=bounds_of(members[1:]))
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(_describe, members))
    if origin is Literal:
        return _Description(choices=list(members))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _describe_enum(hint)
    plain = origin or hint
    if plain in _SIMPLE:
        return _Description({_SIMPLE[plain]})
    if plain in _LISTS:
        return _Description({"list"})
    return _Description({"dict" if plain in (dict, Mapping) else "any"})


def _describe_enum(hint: type[enum.Enum]) -> _Description:
    members = list(hint)
    if all(isinstance(member, str | int) for member in members):
        return _Description(choices=[member.value for member in members], enum=True)
    # A library with such arguments looks them up by name, in capitals; "auto" is its command line's word for None.
    return _Description(choices=["auto", *(member.name for member in members)], enum=True, ignore_case=True)


def bounds_of(metadata: Iterable[Any]) -> Entry:
    return {name: getattr(item, name) for item in metadata for name in _BOUNDS if getattr(item, name, None) is not None}


def version_of(*distributions: str) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise SystemExit(f"{' or '.join(distributions)} is not installed")


def render(tables: Tables) -> str:
    """The tables as JSON with a line for each name, so that a change of one name is a change of one line."""
    sections = []
    for section, content in tables.items():
        if isinstance(content, Mapping):
            lines = [f"{json.dumps(name)}: {json.dumps(content[name])}" for name in sorted(content)]
            sections.append(f"{json.dumps(section)}: {{\n" + ",\n".join(lines) + "\n}")
        else:
            sections.append(f"{json.dumps(section)}: {json.dumps(content)}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def write(library: Library, tables: Tables, folder: Path | None = None) -> None:
    """Write the tables into the library's file, or into a file of its name in the folder."""
    text = render(tables)
    path = library.file if folder is None else folder / f"{library.name}.json"
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {text.count(chr(10))} lines, {len(text)} bytes")


def main(library: Library, tables: Callable[[], Tables]) -> None:
    """The program of a library: its argument is a folder to write into, instead of the library's own file."""
    write(library, tables(), Path(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    main(RAY, ray_tables)
