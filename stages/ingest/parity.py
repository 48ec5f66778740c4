"""Is what training learns what requests ask? Compared by token ids, on the user's own rows and model.

Of each row the prompt that training puts before the last answer is compared with the prompt of a request, and the
learned answer with the row's. A difference, or a row that the chat template does not take, ends the run here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RunnerError
from stages.data.example import Example, Message, read_examples
from stages.evaluate.slices import unknown_slice
from stages.ingest.parsers_needed import check_needed
from stages.models.chat.end_of_turn import has_end
from stages.models.chat.lasting import require_lasting
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import Sample, asked_ids, is_learned
from stages.samples.dataset import judge
from stages.samples.encoder import LAST_ONLY, Encoder
from stages.trainers.base import load_trainer

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

NUM_RANDOM = 32
_MARKS = ('"tool_calls"', '"tools"', '"reasoning_content"', '"system"', '"train"', '"name"', '"images"', "<think>")
_AROUND = 24  # tokens shown on each side of a difference


@dataclass(frozen=True)
class Difference:
    """A row that is learned otherwise than it is asked. learned, asked: the text around the first differing token."""

    row: str
    learned: str
    asked: str
    at: int

    def lines(self, part: str = "prompt") -> list[str]:
        """For a terminal: both texts, one below the other. part: `prompt` or `answer`."""
        return [
            f"{self.row}: what training learns and what is asked differ from the {part}'s token {self.at} on:",
            f"  learned: {self.learned}",
            f"  asked:   {self.asked}",
        ]


def sample_of(path: Path, seed: int) -> list[Example]:
    """The first row, the longest, one of each shape, and NUM_RANDOM drawn at random, each once, in the file's order."""
    chosen: dict[int, bytes] = {}
    shapes: set[tuple[bool, ...]] = set()
    drawn: list[tuple[int, bytes]] = []
    longest, at_longest = b"", 0
    generator = random.Random(seed)  # noqa: S311 (no secret)
    with path.open("rb") as file:
        for index, line in enumerate(file):
            shape = tuple(mark.encode() in line for mark in _MARKS)
            if shape not in shapes:
                shapes.add(shape)
                chosen[index] = line
            if len(line) > len(longest):
                longest, at_longest = line, index
            if len(drawn) < NUM_RANDOM:
                drawn.append((index, line))
            elif (place := generator.randrange(index + 1)) < NUM_RANDOM:
                drawn[place] = (index, line)
    chosen |= dict(drawn) | ({at_longest: longest} if longest else {})
    return [Example.from_json(chosen[index]) for index in sorted(chosen)]


def check(recipe: Recipe, template: ChatTemplate, examples: Iterable[Example]) -> int:
    """Compare the examples; how many were compared. Raises RunnerError at the first that differs or is refused."""
    if recipe.train.stage == "pt":
        return 0
    if not has_end(template) and not _stops(recipe):
        raise RunnerError(
            "the chat template writes nothing after an answer, so the model would not learn to end one",
            "Set model.chat_template to a template that ends the assistant's turn, such as with {{ eos_token }}, or "
            "infer.sampling.stop.",
        )
    encoder = load_trainer(recipe).encoder(recipe, template)
    count = 0
    for count, example in enumerate(examples, 1):  # noqa: B007
        one(encoder, recipe, example)
    return count


def one(encoder: Encoder, recipe: Recipe, example: Example) -> None:
    """Compare one example. Raises RunnerError."""
    where = example.source or example.id
    check_needed(recipe, example)
    try:
        samples = samples_of(encoder, example)
        if example.images:
            encoder.check_images(example)
        others = samples_of(encoder.by_chat_template(), example) if recipe.model.template is not None else samples
        before = _before_the_answer(encoder, example)
        asked = _asked(recipe, encoder.template, example, before)
        require_lasting(encoder.template.seeing(example.images), before, example.tools)
    except RefusedRowError as error:
        raise RunnerError(f"{where}: {error.message}", error.hint) from error
    for sample in samples:
        if difference := _difference(encoder.template, where, sample.ids[: sample.answer_at], asked):
            raise RunnerError("\n".join(difference.lines()), hint_of(recipe))
    for sample, own in zip(samples, others, strict=True):
        learned, expected = sample.ids[sample.answer_at :], own.ids[own.answer_at :]
        shorter = min(len(learned), len(expected))
        if difference := _difference(encoder.template, where, learned[:shorter], expected[:shorter]):
            raise RunnerError("\n".join(difference.lines("answer")), hint_of(recipe))


def _stops(recipe: Recipe) -> bool:
    """Whether the recipe says itself where an answer ends."""
    return bool(recipe.infer.sampling.get("stop") or recipe.infer.sampling.get("stop_token_ids"))


def _before_the_answer(encoder: Encoder, example: Example) -> Sequence[Message]:
    """What is asked before the answer that is compared: the last one that is learned."""
    messages, rules = example.messages, encoder.rules
    if example.chosen is not None:
        return example.prompt
    last_only = rules.last_only or rules.method in LAST_ONLY
    learned = [at for at, each in enumerate(messages) if is_learned(each, at, len(messages), last_only)]
    return messages[: learned[-1]] if learned else example.prompt


def _asked(
    recipe: Recipe, template: ChatTemplate, example: Example, messages: Sequence[Message] | None = None
) -> list[int]:
    asked = example.prompt if messages is None else messages
    return asked_ids(template.seeing(example.images), asked, example.tools, reasoning=recipe.train.reasoning)


def check_lengths(recipe: Recipe, template: ChatTemplate, train: Path, examples: Sequence[Example]) -> None:
    """Raise RunnerError, as training would, where `train.args.cutoff_len` leaves rows that stop the run.

    examples: of the file; all rows are counted only if these say that the run may stop.
    """

    def counted(rows: Iterable[Example]) -> Encoder:
        encoder = load_trainer(recipe).encoder(recipe, template)
        deque(encoder.columns(islice(rows, recipe.train.max_samples)), maxlen=0)
        return encoder

    counts = counted(examples).counts
    if counts.too_long and (recipe.train.too_long == "fail" or not counts.samples):
        whole = counted(read_examples(train))
        judge(whole.counts, whole.rules, "train")


def check_slices(recipe: Recipe, test: Path) -> None:
    """Raise RunnerError where `evaluate.slices` names what no test row has."""
    names = recipe.evaluate.slices if "evaluate" in recipe.pipeline else []
    columns: set[str] = set()
    for example in read_examples(test) if names else ():
        columns.update(example.columns)
    for name in names:
        if wrong := unknown_slice(name, columns):
            raise RunnerError(f"evaluate.slices: {name!r} {wrong[0]}", wrong[1])


def samples_of(encoder: Encoder, example: Example) -> list[Sample]:
    """The samples of an example that are compared."""
    return list(encoder.pair(example)) if example.chosen is not None else encoder.samples(example)[-1:]


def check_parts(recipe: Recipe, template: ChatTemplate, train: str | None, test: str) -> int:
    """`check` of both splits; how many rows were compared.

    train, test: files of examples; train is None where nothing is trained.
    Raises RunnerError also for rows longer than training takes, a test row that the chat template does not take, and
    a slice of the scores that the test rows do not have.
    """
    count = 0
    if train is not None:
        examples = sample_of(Path(train), recipe.seed)
        count = check(recipe, template, examples)
        check_lengths(recipe, template, Path(train), examples)
    check_slices(recipe, Path(test))
    for example in sample_of(Path(test), recipe.seed):
        if example.text is not None:  # which nobody is asked about
            continue
        check_needed(recipe, example)
        try:
            _asked(recipe, template, example)
        except RefusedRowError as error:
            raise RunnerError(f"{example.source or example.id}: {error.message}", error.hint) from error
    return count


def hint_of(recipe: Recipe) -> str:
    """What makes training and requests alike."""
    if recipe.model.template is not None:
        return (
            f"Set model.template=null, so that training uses the chat template of the requests, and not "
            f"LLaMA-Factory's {recipe.model.template}."
        )
    return "Set model.chat_template_kwargs or model.chat_template."


def _difference(template: ChatTemplate, where: str, learned: list[int], asked: list[int]) -> Difference | None:
    if learned == asked:
        return None
    pairs = zip(learned, asked, strict=False)
    at = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(learned), len(asked)))
    start = max(0, at - _AROUND)

    def shown(ids: list[int]) -> str:
        before, after = template.tokenizer.decode(ids[start:at]), template.tokenizer.decode(ids[at : at + _AROUND])
        return f"{'...' if start else ''}{before!r} | {after!r}{'...' if len(ids) > at + _AROUND else ''}"

    return Difference(where, shown(learned), shown(asked), at)
