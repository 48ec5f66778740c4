"""A request for a person to try the endpoint with: a row of the test set, asked as training learns it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact
from stages.data.example import Example, read_examples
from stages.models.endpoint_form import sent_messages
from stages.sections.recipe import Recipe

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
_LOOKED_AT = 100
_MOST_CHARS = 4000  # of a line to copy


def row_to_ask(recipe: Recipe, test_set: Artifact | None) -> dict[str, Any]:
    """`messages`, and `tools` where it has any, of the shortest of the first rows without an image; a greeting where
    there is none. test_set: None where the run has none."""
    asked = [_request(recipe, example) for example in _examples(test_set) if not example.images]
    shortest = min(asked, key=lambda each: len(str(each)), default=HELLO)
    return shortest if len(str(shortest)) <= _MOST_CHARS else HELLO


def _examples(test_set: Artifact | None) -> Iterator[Example]:
    with suppress(OSError, RunnerError):
        if test_set is not None and "://" not in test_set.uri:
            yield from islice(read_examples(test_set.path / "test.jsonl"), _LOOKED_AT)


def _request(recipe: Recipe, example: Example) -> dict[str, Any]:
    messages = sent_messages(example.prompt, reasoning=recipe.train.reasoning)
    return {"messages": messages, **({"tools": example.tools} if example.tools else {})}
