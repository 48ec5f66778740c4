"""Test answers that batch inference cannot give as the recipe samples: they are too long, or hold a text to stop at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.text import count_text
from stages.ingest.answers import without_end
from stages.ingest.parity import sample_of
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError, without_reasoning
from stages.models.learned import learned

if TYPE_CHECKING:
    from stages.data.example import Example
    from stages.sections.recipe import Recipe


def out_of_reach(recipe: Recipe, template: ChatTemplate, test: Path) -> list[str]:
    """A line for each kind of them, of the test rows that ingest looks at; none where nothing is scored."""
    most, stops = recipe.infer.sampling.get("max_tokens"), recipe.infer.sampling.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not {"infer", "evaluate"} <= set(recipe.pipeline) or not (isinstance(most, int) or stops):
        return []
    answers = [ids for each in sample_of(test, recipe.seed) if (ids := _answer(recipe, template, each))]
    lines, shown = [], f"of {count_text(len(answers), 'answer')} looked at"
    lengths = [len(ids) for ids in answers if isinstance(most, int) and len(ids) > most]
    if lengths:
        have = "has" if len(lengths) == 1 else "have"
        lines.append(
            f"test: {len(lengths)} {shown} {have} more tokens than infer.sampling.max_tokens={most}, up to "
            f"{max(lengths)}: no prediction can be equal to them"
        )
    for stop in stops:
        if count := sum(stop in template.tokenizer.decode(ids) for ids in answers):
            hold = "holds" if count == 1 else "hold"
            lines.append(f"test: {count} {shown} {hold} {stop!r}, at which infer.sampling.stop ends a prediction")
    return lines


def _answer(recipe: Recipe, template: ChatTemplate, example: Example) -> list[int]:
    """Token ids of the example's answer without its end; none where it has no answer, or cannot be rendered."""
    if example.answer is None:
        return []
    messages = [*example.prompt, example.answer]
    shown = without_reasoning(messages) if recipe.train.reasoning == "strip" else messages
    plain = [{key: value for key, value in each.items() if key != "train"} for each in shown]
    try:
        found = learned(template.seeing(example.images), plain, example.tools, last_only=True)
    except RefusedRowError:
        return []
    return without_end(template, found[-1])
