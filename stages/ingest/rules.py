"""The comparison of training and requests before a run, where the tokenizer and a row are on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from runner.errors import Problem, RunnerError
from stages.data.example import Example
from stages.data.sample import first_example
from stages.ingest.parity import check
from stages.models.chat.light_tokenizer import LightTokenizer
from stages.models.chat.template_here import tokenizer_folder
from stages.models.chat_template import ChatTemplate, template_text
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import asked_ids
from stages.models.time_limit import MAKERS_CODE, SECONDS, within
from stages.models.vision import model_type_of_vision
from stages.sections.recipe import Recipe

_KEY = "model.chat_template"


def first_rows_are_learned_as_they_are_asked(recipe: Recipe) -> Iterator[Problem]:
    """The first row of each split, without transformers; ingest compares more rows, and LLaMA-Factory's templates."""
    if recipe.model.template is not None or not _template_is_read(recipe):
        return
    seen = {split: first_example(recipe, split) for split in ("train", "test")}
    # a row with tools and no parser is refused by another rule
    rows = {split: row for split, row in seen.items() if row is not None and not _lacks_parser(recipe, row)}
    rows = {split: row for split, row in rows.items() if not row.images}  # of these another rule tells
    folder = _tokenizer_folder(recipe) if rows else None
    if folder is None:
        return
    import tokenizers  # noqa: F401  # here, so that a sweep's check of many recipes imports them once

    try:
        if refusal := within(SECONDS, MAKERS_CODE, lambda: _refusal(recipe, folder, rows)):
            message, hint = refusal
            yield Problem(_KEY, recipe.model.chat_template, f"does not take the first row: {message}", hint)
    except RunnerError as error:
        yield Problem(_KEY, recipe.model.chat_template, f"cannot be used with these rows: {error.message}", error.hint)


def _template_is_read(recipe: Recipe) -> bool:
    """False where another rule tells that it is not."""
    with suppress(RunnerError):
        template_text(recipe.model.chat_template)
        return True
    return False


def _refusal(recipe: Recipe, folder: Path, rows: Mapping[str, Example]) -> tuple[str, str] | None:
    """Why the template refuses a row, and what to do; None where it takes them. Raises as `_render`."""
    try:
        _render(recipe, folder, rows)
    except RefusedRowError as error:
        return error.message, error.hint
    return None


def _render(recipe: Recipe, folder: Path, rows: Mapping[str, Example]) -> None:
    """Raises RunnerError where the template refuses a row, or makes of it something else for training."""
    try:
        tokenizer = LightTokenizer(folder)
        tokenizer("", add_special_tokens=False)
    except Exception:  # tokenizers raises nothing more precise; of these ingest tells
        return
    template = ChatTemplate(tokenizer, recipe.model.chat_template, recipe.model.chat_template_kwargs)
    template.require_variables()
    if "train" in recipe.pipeline and (trained := rows.get("train")) is not None:
        check(recipe, template, [trained])
    if (asked := rows.get("test")) is not None and asked.text is None:
        asked_ids(template, asked.prompt, asked.tools, reasoning=recipe.train.reasoning)


def _tokenizer_folder(recipe: Recipe) -> Path | None:
    """None where it is not on this machine, in a form that transformers alone may read, or of a model that takes
    images; ingest reads it then."""
    folder = tokenizer_folder(recipe)
    if folder is None or not (folder / "tokenizer.json").is_file() or model_type_of_vision(folder) is not None:
        return None
    return folder


def _lacks_parser(recipe: Recipe, example: Example) -> bool:
    """Whether another rule has refused the row."""
    return bool(example.tools) and recipe.model.tool_parser is None


def the_model_takes_the_rows_images(recipe: Recipe) -> Iterator[Problem]:
    rows = [first_example(recipe, split) for split in ("train", "test")]
    if not any(row is not None and row.images for row in rows):
        return
    yield from _other_pixels(recipe)
    folder, published = tokenizer_folder(recipe), recipe.model.architecture
    read = folder is not None and model_type_of_vision(folder) is None
    if read or (folder is None and published is not None and published.of == recipe.model.source):
        message = "takes no images (it has no vision_config), and the rows have them"
        yield Problem("model.source", recipe.model.source, message, "Take a vision-language model, or other rows.")


def _other_pixels(recipe: Recipe) -> Iterator[Problem]:
    """What an engine would do with images and training does not. serve.engine_kwargs has what infer's has, too."""
    stages = [stage for stage in ("infer", "serve") if stage in recipe.pipeline]
    for name in ("mm_processor_kwargs", "media_io_kwargs"):
        for stage in stages:
            if value := getattr(recipe, stage).engine_kwargs.get(name):
                hint = "Leave it out: training has the sizes of the model's own processor."
                yield Problem(f"{stage}.engine_kwargs.{name}", value, "shows other pixels than are learned", hint)
                break


RULES = (first_rows_are_learned_as_they_are_asked, the_model_takes_the_rows_images)
