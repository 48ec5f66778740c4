"""JSON Schemas: of a resolved recipe, and of the files that recipes are made of, for editors.

`make schema` (`runner.cli.schema_files`) writes the files' schemas to recipes/_schema; a test compares them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from pydantic import BaseModel

from runner.recipe.arguments import Entry
from runner.recipe.arguments.mapped import RUNTIME_ENV, Mapped
from runner.recipe.extension import recipe_class
from runner.recipe.load import section_of

_DIALECT = "http://json-schema.org/draft-07/schema#"  # what editors know best
_KINDS = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "list": "array", "dict": "object"}
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_LINE = 400  # characters of a line of a written file: about those of a key with its description
_INTERPOLATION = {"type": "string", "pattern": r"\$\{|^\?\?\?$", "description": "${key}, ${oc.env:NAME}, or ???"}
_HYDRA = {"description": "Hydra's own settings, such as those of a sweeper.", "type": "object"}
_DEFAULTS: dict[str, Any] = {
    "description": "Variants of the groups to take: `- override /model: qwen2_5_7b_instruct`. The keys below win.",
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {"type": "object", "additionalProperties": {"type": ["string", "array", "null"]}},
        ]
    },
}


@dataclasses.dataclass(frozen=True)
class FromStages:
    """What stages say of their keys.

    mappings: whose values go to libraries as they are. choices: key -> the names that it can have. settings: what
    describes the keys of stages that other packages add, by the stage's name.
    """

    mappings: Sequence[Mapped]
    choices: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, type[BaseModel]] = dataclasses.field(default_factory=dict)


def recipe_schema(stages: FromStages) -> dict[str, Any]:
    """Schema of a resolved recipe: every key with type, range, default, examples and meaning."""
    return {"$schema": _DIALECT, **_described(recipe_class(), stages)}


def sections() -> dict[str, type[BaseModel]]:
    """The recipe's sections that can be groups: name -> model."""
    found = {name: section_of(info.annotation) for name, info in recipe_class().model_fields.items()}
    return {name: model for name, model in found.items() if model is not None and name != "resources"}


def file_schema(group: str, stages: FromStages) -> dict[str, Any]:
    """Schema of a group's files: `recipe`, or a section's name. Such a file holds some of the keys.

    A file that begins with `# @package _global_` has the recipe's schema, whatever its group.
    """
    schema = _described(recipe_class() if group == "recipe" else sections()[group], stages)
    if group == "recipe":
        schema["properties"] = {"defaults": _DEFAULTS, **schema["properties"], "hydra": _HYDRA}
    else:
        schema["properties"] = {"defaults": _DEFAULTS} | schema["properties"]
    for model in (schema, *schema.get("$defs", {}).values()):
        model.pop("required", None)
        for name, field in model["properties"].items():
            model["properties"][name] = _or_interpolation(field)
    schema.setdefault("$defs", {})["Interpolation"] = _INTERPOLATION
    return {"$schema": _DIALECT, **schema}


def file_schemas(stages: FromStages) -> dict[str, str]:
    """The files that `make schema` writes: name -> content."""
    groups = ["recipe", *sections()]
    return {f"{group}.json": _compact(file_schema(group, stages)) + "\n" for group in groups}


def _compact(value: Any, indent: str = "") -> str:
    """JSON in which a mapping that fits a line stands on one."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or len(indent) + len(line) <= _LINE:
        return line
    inner = f"{indent} "
    items = [f"{inner}{json.dumps(name)}: {_compact(item, inner)}" for name, item in value.items()]
    return "\n".join(["{", ",\n".join(items), f"{indent}}}"])


def _described(model: type[BaseModel], stages: FromStages) -> dict[str, Any]:
    schema = _completed(model, "#/$defs/{model}")
    if model is recipe_class():
        described = {name: _completed(each, f"#/$defs/{name}.{{model}}") for name, each in stages.settings.items()}
        for name, each in described.items():
            schema["$defs"] |= {f"{name}.{inner}": part for inner, part in each.pop("$defs", {}).items()}
        schema["properties"]["stages"]["properties"] = described
    for mapped in (*stages.mappings, RUNTIME_ENV):
        if (dotted := _below(model, mapped.key, stages)) is not None:
            _fill(_field(schema, dotted), mapped)
    for key, names in stages.choices.items():
        if (dotted := _below(model, key, stages)) is not None:
            _field(schema, dotted).update(enum=list(names), examples=list(names))
    return schema


def _completed(model: type[BaseModel], reference: str) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=reference)
    for name, each in ((model.__name__, schema), *schema.get("$defs", {}).items()):
        each.pop("title", None)
        for key, field in each.get("properties", {}).items():
            field.pop("title", None)
            _complete(field, _model_named(model, name).model_fields[key])
    return schema


def _model_named(model: type[BaseModel], name: str) -> type[BaseModel]:
    return next(each for each in _models(model) if each.__name__ == name)


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for info in model.model_fields.values():
        if inner := section_of(info.annotation):
            yield from _models(inner)


def _complete(field: dict[str, Any], info: Any) -> None:
    """What pydantic leaves out: a default that a function makes, and examples where the default or the choices are."""
    if not info.is_required():
        default = info.get_default(call_default_factory=True)
        field["default"] = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
    if "examples" not in field and "$ref" not in field:
        default = field.get("default")
        field["examples"] = field.get("enum") or ([] if default is None else [default])


def _below(model: type[BaseModel], key: str, stages: FromStages) -> str | None:
    """The dotted key as seen from the model, a recipe or a section of it; None where the model does not have it."""
    section, _, rest = key.partition(".")
    if section == "stages" and rest.partition(".")[0] not in stages.settings:
        return None
    if model is recipe_class():
        return key
    return rest if sections().get(section) is model else None


def _field(schema: dict[str, Any], dotted: str) -> dict[str, Any]:
    *parents, name = dotted.split(".")
    node = schema
    for parent in parents:
        inner = node["additionalProperties"] if parent == "*" else node["properties"][parent]
        node = schema["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
    found: dict[str, Any] = node["properties"][name]
    return found


def _fill(field: dict[str, Any], mapped: Mapped) -> None:
    """Write the library's own arguments into the mapping's schema, so that editors complete and check them."""
    legal = {key: _of_entry(entry, mapped) for key, entry in mapped.entries().items() if key not in mapped.reserved}
    known = field.get("properties", {})  # of another library that the recipe may choose
    legal |= {key: _either(known[key], legal[key]) if key in legal else known[key] for key in known}
    field |= {"properties": legal, "additionalProperties": False}


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return one if one == other else {"anyOf": [one, other]}


def _of_entry(entry: Entry, mapped: Mapped) -> dict[str, Any]:
    kinds = [kind for kind in entry.get("type", "").split("|") if kind]
    schema: dict[str, Any] = {"description": f"{mapped.what.capitalize()} of {mapped.library.versioned}."}
    bounds = {_BOUNDS[key]: value for key, value in entry.items() if key in _BOUNDS}
    options: list[dict[str, Any]] = [
        {"type": _KINDS.get(kind, kind)} | (bounds if kind in ("int", "float") else {}) for kind in kinds
    ]
    if mapped.null_drops and "null" not in kinds:
        options.append({"type": "null"})
    if choices := entry.get("choices"):
        options.insert(0, {"type": "string", "examples": choices} if entry.get("ignore_case") else {"enum": choices})
    if "any" not in kinds:
        schema |= options[0] if len(options) == 1 else {"anyOf": options}
    return schema | ({"default": entry["default"]} if "default" in entry else {})


def _or_interpolation(field: dict[str, Any]) -> dict[str, Any]:
    """The same, or an interpolation where that is not text that the schema takes anyway. Sections are left alone."""
    field = deepcopy(field)
    field.pop("required", None)
    if "properties" in field:
        field["properties"] = {name: _or_interpolation(inner) for name, inner in field["properties"].items()}
    rule = {key: field.pop(key) for key in list(field) if key not in ("description", "default", "examples")}
    takes_any_text = rule == {"type": "string"} or {"type": "string"} in rule.get("anyOf", [])
    if "$ref" in rule or not rule or takes_any_text:
        return field | rule
    return field | {
        "anyOf": [*(rule["anyOf"] if set(rule) == {"anyOf"} else [rule]), {"$ref": "#/$defs/Interpolation"}]
    }
