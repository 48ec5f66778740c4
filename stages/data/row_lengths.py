"""How long the rows are, before a tokenizer has seen them: from the texts of the first ones on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from runner.errors import RunnerError
from runner.pipeline.estimates.figure import Known
from runner.pipeline.estimates.past import newest_record
from runner.text import count_text
from stages.data.example import BadRowError, Example, Message, read_examples, text_of
from stages.data.look import light_rows
from stages.data.shapes.convert import make_example
from stages.sections.recipe import Recipe

_MOST_ROWS = 200
CHARACTERS_PER_TOKEN = 3.9  # of English in tokenizers of 50,000 to 150,000 tokens
_MESSAGE_TOKENS = 7  # that a chat template puts around a message; a default system message counts as one
_FOLDERS = {"train": "train_set", "test": "test_set"}


@dataclass(frozen=True)
class RowLengths:
    """Tokens of a row's prompt and answer, on average, and of what all prompts begin with. basis: where from."""

    prompt: float
    answer: float
    shared: float
    basis: str

    @property
    def whole(self) -> float:
        return self.prompt + self.answer


def known_lengths(known: Known[Recipe], split: str) -> RowLengths | None:
    """Of the split; of the training rows where the test rows are held out of them. None where no row can be seen."""
    ingested = newest_record(known, "ingest", "dataset.")
    for artifact in ingested.artifacts if ingested else []:
        path = Path(artifact.uri) / f"{split}.jsonl"
        if artifact.name == _FOLDERS[split] and path.is_file():
            with suppress(RunnerError, OSError):
                return of_examples(list(islice(read_examples(path), _MOST_ROWS)))
    found = of_examples(list(_examples(known.recipe, split)))
    return found or (of_examples(list(_examples(known.recipe, "train"))) if split == "test" else None)


def _examples(recipe: Recipe, split: str) -> Iterator[Example]:
    convert = make_example(recipe.dataset, recipe.train.stage, split, keep_columns=False)
    for number, row in enumerate(islice(light_rows(recipe, split), _MOST_ROWS)):
        with suppress(BadRowError, RunnerError):
            yield convert(row, str(number), "")


def of_examples(examples: Sequence[Example]) -> RowLengths | None:
    """Estimated from the number of characters; None without examples."""
    if not examples:
        return None
    prompts = ["".join(text_of(message) for message in each.prompt) or (each.text or "") for each in examples]
    answers = [max((text_of(message) for message in _answers(each)), key=len, default="") for each in examples]
    around = [_MESSAGE_TOKENS * (1 + len(each.prompt)) for each in examples]
    count = len(examples)
    prompt = (sum(map(len, prompts)) / CHARACTERS_PER_TOKEN + sum(around)) / count
    answer = sum(map(len, answers)) / CHARACTERS_PER_TOKEN / count + _MESSAGE_TOKENS
    shared = _common(prompts) / CHARACTERS_PER_TOKEN if count > 1 else 0.0
    return RowLengths(prompt, answer, shared, f"the texts of {count_text(count, 'row')}")


def _common(texts: Sequence[str]) -> int:
    """Characters that all texts begin with: as many as the first and the last in order do."""
    first, last = min(texts), max(texts)
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _answers(example: Example) -> list[Message]:
    pair = [*(example.chosen or ()), *(example.rejected or ())]
    return pair or ([example.answer] if example.answer else [])
