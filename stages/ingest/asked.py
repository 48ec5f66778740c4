"""Are the requests that the engine gets those that training was compared with?

Parity is checked with the tokenizer of the trainer's environment. An engine in another environment has another release
of it, and is held to the same tokens on the same rows; what it answers is read back there as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.cluster.environments import Chosen
from runner.errors import RunnerError
from runner.storage.digest import digest_json
from stages.engines.base import engine_environment
from stages.ingest.answers import check_answers, needs_reading
from stages.ingest.parity import check_parts, sample_of
from stages.ingest.reach import out_of_reach
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import asked_ids
from stages.models.time_limit import MAKERS_CODE, within
from stages.samples import without_torch
from stages.trainers.base import trainer_environment

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

_WARM_UP = [{"role": "user", "content": "warmup"}]  # of vLLM's server


def learned_in(recipe: Recipe) -> Chosen | None:
    """The environment that rows are compared in: the trainer's, or where nothing is trained the engine's; None for the
    runner's own."""
    return trainer_environment(recipe) if "train" in recipe.pipeline else engine_environment(recipe)


def asked_in(recipe: Recipe) -> Chosen | None:
    """The environment that requests are made in; None where none are, or in the runner's own."""
    return engine_environment(recipe) if _asks(recipe) else None


def asked_elsewhere(recipe: Recipe) -> bool:
    """Whether requests are made, and not by the tokenizer that rows are compared with."""
    return _asks(recipe) and engine_environment(recipe) != learned_in(recipe)


def _asks(recipe: Recipe) -> bool:
    return bool({"infer", "serve"} & set(recipe.pipeline))


@dataclass(frozen=True)
class There:
    """What the engine's environment makes of the rows. asked: `asked_digests`. wrong: of an answer that is read
    otherwise than the row has it."""

    asked: dict[str, str]
    wrong: RunnerError | None = None


class Here(NamedTuple):
    """What the trainer's environment makes of the rows. compared: how many were. asked: `asked_digests`. remarks:
    `out_of_reach`."""

    compared: int
    asked: dict[str, str]
    remarks: list[str]


def compare(recipe: Recipe, model: str, train: str | None, test: str) -> Here:
    """`check_parts`, and what is told of the same files, as a task of its own."""
    without_torch.begin()

    def compared() -> Here:
        template = ChatTemplate.of(recipe, model)
        template.require_variables()
        _begin_as_an_endpoint(recipe, template)
        count = check_parts(recipe, template, train, test)
        asked = asked_digests(recipe, template, _files(train, test)) if asked_elsewhere(recipe) else {}
        return Here(count, asked, out_of_reach(recipe, template, Path(test)))

    return Here(*within(None, MAKERS_CODE, compared))


def _begin_as_an_endpoint(recipe: Recipe, template: ChatTemplate) -> None:
    """Render what a replica of the endpoint renders when it starts, where no limit would hold it."""
    if "serve" in recipe.pipeline:
        with suppress(RefusedRowError):
            template.prompt_ids(_WARM_UP)
        template.stop  # noqa: B018 (computed)


def asked_digests(recipe: Recipe, template: ChatTemplate, files: Sequence[str]) -> dict[str, str]:
    """A digest of the tokens of each request that ingest looks at, or of why the template refuses it, by the row's
    place. files: of examples."""
    found = {}
    for file in files:
        for example in sample_of(Path(file), recipe.seed):
            try:
                seeing = template.seeing(example.images)
                made: Any = asked_ids(seeing, example.prompt, example.tools, reasoning=recipe.train.reasoning)
            except RefusedRowError as error:
                made = error.message
            found[f"{Path(file).stem}: {example.source or example.id}"] = digest_json(made)
    return found


def look_there(recipe: Recipe, model: str, train: str | None, test: str) -> There:
    """The requests and the rows' answers in the engine's environment, as a task there, next to `compare`.

    What is wrong is given back, so that what `compare` finds is told before it.
    """
    without_torch.begin()
    asked, wrong = within(None, MAKERS_CODE, lambda: _looked_at(recipe, model, _files(train, test)))
    return There(asked, RunnerError(*wrong) if wrong else None)


def _looked_at(recipe: Recipe, model: str, files: Sequence[str]) -> tuple[dict[str, str], tuple[str, str] | None]:
    """`asked` of There, and message and hint of its `wrong`."""
    asked = asked_digests(recipe, ChatTemplate.of(recipe, model), files) if asked_elsewhere(recipe) else {}
    try:
        if needs_reading(recipe):
            check_answers(recipe, model, files)
    except RunnerError as error:
        return asked, (error.message, error.hint)
    return asked, None


def require_alike(recipe: Recipe, here: Mapping[str, str], there: There) -> None:
    """Raise RunnerError at the first request or answer that differs in the engine's environment. here: of `compare`."""
    if asked_elsewhere(recipe):
        require_same_requests(_name(asked_in(recipe)), _name(learned_in(recipe)), here, there.asked)
    if there.wrong is not None:
        raise there.wrong


def _name(chosen: Chosen | None) -> str:
    return f"environment {chosen.name}" if chosen else "runner's own environment"


def require_same_requests(asking: str, learning: str, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise RunnerError naming a row of which one environment makes another request than the other.

    here, there: `asked_digests` in that of training and in that of the requests.
    """
    row = next((row for row in {**here, **there} if here.get(row) != there.get(row)), None)
    if row is not None:
        raise RunnerError(
            f"{row}: the tokenizer of the {asking} makes another request of this row than that of the {learning}, so "
            "training would learn what no request asks",
            "Pin the same tokenizers and transformers for both in requirements/environments, or use another model.",
        )


def _files(train: str | None, test: str) -> list[str]:
    return [path for path in (train, test) if path is not None]
