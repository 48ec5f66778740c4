"""Rules about the prompt: that its templates parse, that it is whole, and that the rows have its columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import Problem, RunnerError, nearest
from stages.data.look import first_row
from stages.data.prompt import TEMPLATES, braced, columns, has, names, only_column, template_columns
from stages.data.shapes.conversation import holds_messages
from stages.data.shapes.convert import PAIR_STAGES, TEXT_STAGES
from stages.data.shapes.kto import LABELS
from stages.data.shapes.preference import CHOSEN, REJECTED
from stages.data.shapes.recognise import recognise
from stages.sections.prompt import Prompt
from stages.sections.recipe import Recipe

_ASKING = ("infer", "evaluate", "serve", "query")


def prompt_templates_parse(recipe: Recipe) -> Iterator[Problem]:
    for name in TEMPLATES:
        template = getattr(recipe.dataset.prompt, name)
        if template is None:
            continue
        try:
            used = columns(template)
        except RunnerError as error:
            yield Problem(f"dataset.prompt.{name}", template, error.message, error.hint)
            continue
        if name != "system" and not used:
            message = "names no column of the row, so every row would be the same"
            yield Problem(f"dataset.prompt.{name}", template, message, _in_braces(recipe, template))
        if name in ("label", "history") and used and only_column(template) is None:
            message, hint = "is not one column alone", f"Write {{{name}}}, for example."
            yield Problem(f"dataset.prompt.{name}", template, message, hint)


def _in_braces(recipe: Recipe, template: str) -> str:
    """How to name a column of the rows, where the template is one's name or has it in two braces."""
    row = first_row(recipe, "train") or first_row(recipe, "test") or {}
    words = [template, *braced(template)]
    name = next((each for each in words if has(row, each)), None)
    many = " Two braces stand for one brace of the text." if name and name != template else ""
    return f"Write {{{name}}}.{many}" if name else "Name a column in braces, such as {input}."


def prompt_is_whole(recipe: Recipe) -> Iterator[Problem]:
    """Messages come from the templates or from a column, not from both and not from half of one."""
    prompt = recipe.dataset.prompt
    templates = {"user": prompt.user, "assistant": prompt.assistant}
    hint = _suggestion(recipe)
    for name, template in templates.items():
        if prompt.conversations is None and template is None and _needed(recipe, name):
            how = (
                hint
                or f"Add dataset.prompt.{name}=..., or name the column of messages in dataset.prompt.conversations."
            )
            yield Problem(f"dataset.prompt.{name}", None, "is required and was not given", how)
    given = [f"dataset.prompt.{n}" for n in (*templates, "history") if getattr(prompt, n) is not None]
    if prompt.conversations is not None and given:
        message = f"stands next to {' and '.join(given)}: a row's messages are either there or made by these"
        hint = f"Set {' and '.join(f'{name}=null' for name in given)}, or remove conversations."
        yield Problem("dataset.prompt.conversations", prompt.conversations, message, hint)


def _needed(recipe: Recipe, name: str) -> bool:
    """Whether the training method, or a stage that asks, needs the user's or the assistant's template."""
    stage, prompt = recipe.train.stage, recipe.dataset.prompt
    if stage in TEXT_STAGES:
        return bool(set(_ASKING) & set(recipe.pipeline))
    if stage in PAIR_STAGES:
        row = first_row(recipe, "train") or {}
        chosen = only_column(prompt.chosen) if prompt.chosen else next((each for each in CHOSEN if each in row), None)
        return name == "user" and not (chosen and holds_messages(row.get(chosen)))
    return True


def _suggestion(recipe: Recipe) -> str:
    """The prompt that fits the first row, where nothing of one was given."""
    prompt, row = recipe.dataset.prompt, first_row(recipe, "train") or first_row(recipe, "test")
    if row is None or prompt.user or prompt.assistant or prompt.conversations:
        return ""
    shape, text = recognise(row)
    return f"The rows look like {shape}: write dataset.prompt: {text}." if text else ""


def prompt_columns_exist(recipe: Recipe) -> Iterator[Problem]:
    """Where the rows can be seen without a network: generated ones, and the first of a local file."""
    row = first_row(recipe, _prompted_split(recipe))
    if not row:
        return
    for name in _checked(recipe):
        template = getattr(recipe.dataset.prompt, name)
        if template is None:
            continue
        try:
            missing = sorted(_missing(name, template, row))
        except RunnerError:
            continue  # reported by prompt_templates_parse
        if missing:
            guess = _meant(missing[0], row)
            message = f"takes {_named(missing)}, which the rows lack; they have: {names(sorted(row))}"
            near = guess if name == "conversations" else f"{{{guess}}}"
            hint = f"Did you mean {near}?" if guess else _other(name, missing[0], row)
            yield Problem(f"dataset.prompt.{name}", template, message, hint)


def _meant(name: str, row: Mapping[str, Any]) -> str | None:
    """The column of the row that a name may mean: one written with brackets or a format, one inside of an object, or
    the nearest."""
    dotted = re.sub(r"\[['\"]?([^]'\"]+)['\"]?\]", r".\1", name.strip())
    others = (dotted, dotted.partition(":")[0], dotted.partition(".")[2])
    inside = (path for path in _paths(row) if path.endswith(f".{dotted}"))
    return next((each for each in others if each and has(row, each)), None) or next(inside, None) or nearest(name, row)


def _paths(row: Mapping[str, Any], depth: int = 3) -> Iterator[str]:
    """The parts of the row's objects, such as `data.question`."""
    for name, value in row.items():
        if isinstance(value, Mapping) and depth:
            yield from (f"{name}.{each}" for each in (*value, *_paths(value, depth - 1)))


def _prompted_split(recipe: Recipe) -> str:
    return "test" if recipe.train.stage in TEXT_STAGES else "train" if "train" in recipe.pipeline else "test"


def _checked(recipe: Recipe) -> tuple[str, ...]:
    stage = recipe.train.stage
    return (
        "system", "user", "history", "conversations",
        *(() if stage in PAIR_STAGES else ("assistant",)),
        *(("chosen", "rejected") if stage in PAIR_STAGES else ()),
        *(("label",) if stage == "kto" else ()),
    )  # fmt: skip


def _missing(name: str, template: str, row: Mapping[str, Any]) -> set[str]:
    if name == "conversations":
        return set() if has(row, template) else {template}
    found = template_columns(template)
    return {column.name for column in found if column.default is None and not has(row, column.name)}


def _other(name: str, column: str, row: Mapping[str, Any]) -> str:
    if row.keys() == {"text"} and column in str(row["text"]):
        return "Name the file .csv or .tsv if it is a table: of a text file each line is a row with the column text."
    if name == "conversations":
        return "Name one of these."
    return f"Name one of these, write {{{column}|}} for one that may be missing, or {{{{ }}}} for braces."


def training_columns_exist(recipe: Recipe) -> Iterator[Problem]:
    """Columns that a training method finds by their usual names (chosen, kto_tag, text)."""
    stage, row = recipe.train.stage, first_row(recipe, "train")
    if "train" not in recipe.pipeline or not row:
        return
    missing = [known[0] for known in _usual(stage, recipe.dataset.prompt) if not any(name in row for name in known)]
    if missing:
        message = f"takes rows with {_named(missing)}, which they lack; they have: {names(sorted(row))}"
        hint = "Name the columns in dataset.prompt, give other data, or set train.stage=sft."
        yield Problem("train.stage", stage, message, hint)


def _usual(stage: str, prompt: Prompt) -> list[tuple[str, ...]]:
    if stage in TEXT_STAGES:
        return [] if prompt.text else [("text",)]
    if stage in PAIR_STAGES:
        return [names for names, given in ((CHOSEN, prompt.chosen), (REJECTED, prompt.rejected)) if not given]
    return [LABELS] if stage == "kto" and not prompt.label else []


def _named(names: list[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {' and '.join(map(repr, names))}"


RULES = (
    prompt_templates_parse,
    prompt_is_whole,
    prompt_columns_exist,
    training_columns_exist,
)
