"""Prints the table of LLaMA-Factory's templates, in its environment: `make templates`.

`model.template` may name any of them. LLaMA-Factory itself makes a chat template of each, and both are compared
as ingest compares them, on conversations with and without a system message, of one turn and of several.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.errors import RunnerError
from stages.data.example import Example
from stages.ingest.parity import check
from stages.models.chat_template import ChatTemplate
from stages.models.learned import asked_ids
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.arguments import torchaudio_stand_in
from tests.stages.models.families import save_tokenizer

BEGIN, END = (
    "<!-- made by make templates -->",
    "<!-- end of templates -->",
)
NOT_MADE = "not compared: LLaMA-Factory makes no chat template of it"
_ASKED: list[Any] = [{"role": "user", "content": "Open on Sunday?"}, {"role": "assistant", "content": "At eight."}]
_MORE: list[Any] = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
_SYSTEM: list[Any] = [{"role": "system", "content": "Be brief."}]
CONVERSATIONS = {
    "question and answer": _ASKED,
    "two turns": [*_ASKED, *_MORE],
    "system message": [*_SYSTEM, *_ASKED],
    "system message, two turns": [*_SYSTEM, *_ASKED, *_MORE],
}


def names() -> list[str]:
    """All templates that LLaMA-Factory has."""
    with torchaudio_stand_in():
        from llamafactory.data.template import TEMPLATES

    return sorted(name for name in TEMPLATES if " " not in name)


def outcomes(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(conversation, outcome) of a template: "equal", or why the run ends before training.

    Raises AssertionError where the run would continue and LLaMA-Factory's own encoding differs from a request.
    """
    made = jinja_of(folder, name)
    for shown, messages in CONVERSATIONS.items():
        if made is None:
            yield shown, NOT_MADE
            continue
        recipe = recipe_of(folder, name, made)
        template = ChatTemplate.of(recipe, folder)
        try:
            check(recipe, template, [Example("1", messages)])
        except RunnerError as error:
            yield shown, error.message.splitlines()[0].removeprefix("1: ")
            continue
        assert encoded(folder, name, messages) == asked_ids(template, messages[:-1], None), (name, shown)
        yield shown, "equal"


def recipe_of(folder: Path, name: str, chat_template: str) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny", "pipeline": ["ingest", "train"], "serve": {"model_id": "base"},
            "model": {"source": str(folder), "template": name, "chat_template": chat_template},
            "dataset": {"source": "data", "prompt": {"conversations": "messages"}},
        }
    )  # fmt: skip


def _loaded(folder: Path, name: str) -> tuple[Any, Any]:
    with torchaudio_stand_in():
        from llamafactory.data import get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    return tokenizer, get_template_and_fix_tokenizer(tokenizer, DataArguments(template=name))


def jinja_of(folder: Path, name: str) -> str | None:
    """The chat template that LLaMA-Factory writes next to what it trains by its template of that name."""
    tokenizer, template = _loaded(folder, name)
    try:
        template.fix_jinja_template(tokenizer)
    except (TypeError, ValueError, KeyError, IndexError):
        return None
    return str(tokenizer.chat_template) if tokenizer.chat_template else None


def encoded(folder: Path, name: str, messages: list[Any]) -> list[int]:
    """The prompt of the last answer, by LLaMA-Factory alone."""
    tokenizer, template = _loaded(folder, name)
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    pairs = template.encode_multiturn(tokenizer, [each for each in messages if each["role"] != "system"], system)
    ids: list[int] = []
    for prompt, answer in pairs[:-1]:
        ids += [*prompt, *answer]
    return [*ids, *pairs[-1][0]]


def table() -> str:
    """The table in Markdown: outcomes, and the templates that have them."""
    logging.disable(logging.WARNING)
    found: dict[str, list[str]] = {}
    with TemporaryDirectory() as root, warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        folder = save_tokenizer("base", Path(root))
        for name in names():
            found.setdefault(_together(dict(outcomes(folder, name))), []).append(name)
    logging.disable(logging.NOTSET)
    lines = ["| Prompts of training and of requests | Templates |", "|---|---|"]
    for outcome, each in sorted(found.items(), key=lambda item: -len(item[1])):
        lines.append(f"| {outcome} | {len(each)}: {', '.join(each)} |")
    return "\n".join(lines)


def _together(found: dict[str, str]) -> str:
    """The outcomes of a template's conversations as one text."""
    short = {shown: _short(outcome) for shown, outcome in found.items()}
    alike = {outcome: [shown for shown, each in short.items() if each == outcome] for outcome in short.values()}
    if len(alike) == 1:
        return next(iter(alike))
    return "; ".join(f"{outcome} ({', '.join(shown)})" for outcome, shown in alike.items())


def _short(outcome: str) -> str:
    if outcome.startswith("what training learns"):
        return "refused before training: they differ"
    if "images or audio" in outcome:
        return "refused before training: of models with images or audio"
    return outcome if outcome in ("equal", NOT_MADE) else f"refused before training: {outcome}"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
