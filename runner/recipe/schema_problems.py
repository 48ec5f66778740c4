"""What the schema refuses of a recipe's values, each as a problem with its key, what is allowed and what to write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from runner.errors import Problem, nearest
from runner.recipe.schema import RunOptions, Section
from runner.recipe.valid_parts import field_path, section_at, section_fields, section_of
from runner.text import count_text

# pydantic's errors about a value of the wrong kind, in the words that `runner.recipe.arguments` uses.
_MUST = "must be "
UNKNOWN = "is not a known key"
_KINDS = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a mapping"),
    "list_type": "must be a list",
    "string_type": "must be a text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
}


def errors_by_key(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[str, Any]]:
    """Key and error of each value. One that is none of several kinds has one error, which names them all."""
    found: dict[str, list[Any]] = {}
    for item in error.errors():
        whole = field_path(model, item["loc"])
        found.setdefault(_dotted(whole), []).append(item)
    for key, items in found.items():
        kinds = list(dict.fromkeys(map(_kind, items)))
        same = all(kind.startswith(_MUST) for kind in kinds)
        text = _MUST + " or ".join(kind.removeprefix(_MUST) for kind in kinds) if same else ", or ".join(kinds)
        yield key, items[0] if len(items) == 1 else {**items[0], "type": "", "msg": text}


def _kind(item: Any) -> str:
    if item["type"] in _KINDS:
        return _KINDS[item["type"]]
    if item["type"] in ("too_short", "too_long"):
        few = item["type"] == "too_short"
        count = count_text(item["ctx"]["min_length" if few else "max_length"], "item")
        return f"must have at {'least' if few else 'most'} {count}"
    text = re.sub(r"^(Input|String) should (be )?", _MUST if "should be " in item["msg"] else "must ", item["msg"])
    return text[0].lower() + text[1:]


def _dotted(loc: tuple[int | str, ...]) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return key.removeprefix(".")


def settings_problems(model: type[BaseModel], values: Any, section: str) -> list[Problem]:
    """What the model says against the values of a section that the recipe's own schema does not describe."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        return [schema_problem(model, key, item, "", f"{section}.") for key, item in errors_by_key(model, error)]
    return []


def schema_problem(model: type[BaseModel], key: str, item: Any, origin: str, prefix: str) -> Problem:
    """key: below the model; prefix: of the model's section in the recipe, with its dot, or ""."""
    parent, _, name = key.rpartition(".")
    value = None if item["type"] == "missing" else item["input"]
    if item["type"] == "extra_forbidden":
        return _unknown_key(model, key, str(item["loc"][-1]), value, origin, prefix)
    if item["type"] == "missing":
        return Problem(
            f"{prefix}{key}", None, "is required and was not given", _how_to_give(model, key, prefix), origin
        )
    if item["type"] == "string_pattern_mismatch" and (form := _form(model, key)):
        return Problem(f"{prefix}{key}", value, f"must be {form}", field_description(model, key), origin)
    there = section_at(model, parent)
    instead = there.other_values.get(name, {}) if there is not None and issubclass(there, Section) else {}
    hint = (
        instead.get(str(value).lower())
        or _other_writing(item["type"], value, named=name in section_fields(model, parent))
        or _keys_of(item["type"], model, key, prefix)
        or field_description(model, key)
        or field_description(model, parent)
    )
    return Problem(f"{prefix}{key}", value, _kind(item), hint, origin)


def _unknown_key(model: type[BaseModel], key: str, written: str, value: Any, origin: str, prefix: str) -> Problem:
    """written: the key's last part, as it stands in the file."""
    parent, _, name = key.rpartition(".")
    if "." in written:
        above, _, last = written.rpartition(".")
        nested = f"{above.replace('.', ': {')}: {{{last}: ...{'}' * (above.count('.') + 1)}"
        message = "has dots in its name, which a file writes nested"
        return Problem(f"{prefix}{key}", value, message, f"Write {nested}.", origin)
    if name == parent.rpartition(".")[2] and isinstance(value, dict):
        hint = f"A file of the group {parent} has its keys at the top: remove the line `{name}:` and what indents them."
        return Problem(f"{prefix}{key}", value, "stands within itself", hint, origin)
    legal = set(section_fields(model, parent))
    if not prefix and not parent:
        legal |= set(RunOptions.model_fields)
    section = f"{prefix}{parent}".rstrip(".")
    guess = nearest(name, legal)
    message = f"{UNKNOWN}; {section or 'a recipe'} takes: {', '.join(sorted(legal))}"
    hint = f"Did you mean {f'{section}.{guess}' if section else guess}?" if guess else "Remove it."
    return Problem(f"{prefix}{key}", value, message, hint, origin)


def _form(model: type[BaseModel], dotted: str) -> str:
    """In words, what a text of the field may hold."""
    parent, _, name = dotted.rpartition(".")
    extra = section_fields(model, parent)[name].json_schema_extra
    return str(extra["patternErrorMessage"]) if isinstance(extra, dict) and "patternErrorMessage" in extra else ""


def _keys_of(kind: str, model: type[BaseModel], key: str, prefix: str) -> str:
    """The keys of a section that was given a single value."""
    found = section_fields(model, key) if _KINDS.get(kind) == _KINDS["dict_type"] else {}
    return f"It has keys of its own: {', '.join(f'{prefix}{key}.{name}' for name in found)}." if found else ""


def _other_writing(kind: str, value: Any, *, named: bool) -> str:
    """How a value of the wrong kind is written as one of the right kind, where that is plain; else "".

    named: whether it is a field's, and not an item's of a mapping.
    """
    if kind == "string_type" and isinstance(value, bool):
        return "YAML reads yes, no, on, off, true and false so: put quotes around the text."
    if kind == "string_type" and named and isinstance(value, int | float):
        return "YAML reads this as a number: put quotes around the text."
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        plain = yaml.safe_load(value) if re.fullmatch(r"[\w.+-]{1,100}", value) else None
        if isinstance(plain, bool if kind == "bool_type" else int | float) and str(plain).lower() == value.lower():
            return f"Write {value} without quotes."
    if kind == "list_type" and isinstance(value, str) and value:
        return f"Write a list: [{value}]."
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"Write {value:.0f}."
    return ""


def _how_to_give(model: type[BaseModel], key: str, prefix: str) -> str:
    parent, _, name = key.rpartition(".")
    section = section_of(section_fields(model, parent)[name].annotation)
    if section is None or prefix:
        return f"Add {prefix}{key}=..."
    required = [f"{key}.{each}=..." for each, field in section.model_fields.items() if field.is_required()]
    return f"Add {' '.join(required)}, or choose a variant, {key}=NAME: `python -m runner list` has their names."


def field_description(model: type[BaseModel], dotted: str) -> str:
    """Description of the field at the dotted key, or ""."""
    parent, _, name = dotted.rpartition(".")
    info = section_fields(model, parent).get(name)
    return (info.description or "") if info is not None else ""
