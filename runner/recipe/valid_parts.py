"""A recipe of which some values are wrong, for rules that look at the others.

All problems of a recipe are reported together: those of the schema, and those of rules across sections. A rule gets
what reads like the recipe; when it comes to a value that the schema refused, that rule ends there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MethodType, NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import BaseModel

from runner.recipe.extension import recipe_class
from runner.recipe.schema import Recipe, Section


def section_of(annotation: Any) -> type[Section] | None:
    """The section that an annotation names: itself, in `Section | None` or inside a mapping; None for anything else."""
    for form in (annotation, *get_args(annotation)):
        each = get_args(form)[0] if get_origin(form) is Annotated else form
        if isinstance(each, type) and issubclass(each, Section):
            return each
    return None


def section_fields(model: type[BaseModel], dotted: str) -> dict[str, Any]:
    """Fields of the section at the dotted key; {} for a pass-through mapping."""
    section = section_at(model, dotted)
    return dict(section.model_fields) if section is not None else {}


def section_at(model: type[BaseModel], dotted: str) -> type[BaseModel] | None:
    """The section at the dotted key, the model itself for ""; None for a pass-through mapping."""
    found = model
    for part in [part for part in dotted.split(".") if part]:
        info = found.model_fields.get(part)
        if info is None:
            continue  # the free name inside a mapping, such as resources.<stage>
        section = section_of(info.annotation)
        if section is None:
            return None
        found = section
    return found


def field_path(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a pydantic error is, without its names of the alternatives where a field takes values of several kinds."""
    known: type[BaseModel] | None = model
    parts, found = iter(loc), list[int | str]()
    for part in parts:
        found.append(part)
        field = known.model_fields.get(str(part)) if known else None
        if field is None:
            continue
        known = section_of(field.annotation)
        if sum(each is not NoneType for each in _alternatives(field.annotation)) > 1:
            if known is None:
                break
            next(parts, None)  # the name of the alternative; what follows is a key of the section
    return tuple(found)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


class UnusableError(Exception):
    """A rule has read a value that is missing or wrong; the schema has reported that already."""


class PartialSection:
    """Reads like a section of the recipe, from raw values.

    wrong: dotted keys, from the recipe's root, of what the schema refused. Reading one of them, or a mapping or list
    that holds one, raises UnusableError.
    """

    def __init__(
        self, model: type[BaseModel], values: Mapping[str, Any], wrong: Collection[str], path: str = ""
    ) -> None:
        self._model, self._values, self._wrong, self._path = model, values, wrong, path

    def __getattr__(self, name: str) -> Any:
        info = self._model.model_fields.get(name)
        if info is None:
            found = getattr(self._model, name)
            return found.__get__(self) if isinstance(found, property) else MethodType(found, self)
        path = f"{self._path}.{name}" if self._path else name
        self._refuse(path, within=False)
        if name not in self._values:
            return info.get_default(call_default_factory=True)
        return self._read(info.annotation, self._values[name], path)

    def _read(self, annotation: Any, value: Any, path: str) -> Any:
        section = None if get_origin(annotation) is dict else section_of(annotation)
        if section is not None and isinstance(value, Mapping):
            if section is not annotation:  # one that may be null is read whole or not at all
                self._refuse(path)
            return PartialSection(section, section.completed(dict(value)), self._wrong, path)
        inner = get_args(annotation)[1] if get_origin(annotation) is dict else None
        if inner is Any:  # the items of a pass-through mapping stand for themselves
            return {key: item for key, item in value.items() if not self._holds_wrong(f"{path}.{key}")}
        if inner is not None:
            return {key: self._read_item(inner, item, f"{path}.{key}") for key, item in value.items()}
        self._refuse(path)
        return value

    def _read_item(self, annotation: Any, value: Any, path: str) -> Any:
        self._refuse(path, within=False)
        return self._read(annotation, value, path)

    def _refuse(self, path: str, *, within: bool = True) -> None:
        if path in self._wrong or (within and self._holds_wrong(path)):
            raise UnusableError(path)

    def _holds_wrong(self, path: str) -> bool:
        return any(key == path or key.startswith((f"{path}.", f"{path}[")) for key in self._wrong)


def partial_recipe(values: Mapping[str, Any], wrong: Collection[str]) -> Recipe:
    """What can be read of the recipe. Every field that is missing although it is required must be among the wrong."""
    return cast(Recipe, PartialSection(recipe_class(), values, wrong, ""))
