"""Are the requests that the engine gets those that training was compared with?

Parity is checked with the tokenizer of the runner's environment. An engine in an environment of its own has another
release of it, and is held to the same tokens on the same rows; what it answers is read back there as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cluster.environments import Chosen
from runner.errors import RunnerError
from runner.storage.digest import digest_json
from stages.engines.base import engine_environment
from stages.ingest.answers import check_answers, needs_reading
from stages.ingest.parity import check_parts, sample_of
from stages.models.chat_template import ChatTemplate
from stages.models.learned import asked_ids

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe


def asked_in(recipe: Recipe) -> Chosen | None:
    """The environment that requests are made in; None where none are, or in the runner's own."""
    return engine_environment(recipe) if {"infer", "serve"} & set(recipe.pipeline) else None


def compare(recipe: Recipe, model: str, train: str | None, test: str) -> tuple[int, dict[str, str]]:
    """`check_parts` and `asked_digests` of the same files, as a task of its own."""
    count = check_parts(recipe, model, train, test)
    return count, asked_digests(recipe, model, _files(train, test)) if asked_in(recipe) else {}


def asked_digests(recipe: Recipe, model: str, files: Sequence[str]) -> dict[str, str]:
    """A digest of the tokens of each request that ingest looks at, by the row's place.

    model: folder of the model. files: of examples.
    """
    template, found = ChatTemplate.of(recipe, model), {}
    for file in files:
        for example in sample_of(Path(file), recipe.seed):
            seeing = template.seeing(example.images)
            ids = asked_ids(seeing, example.prompt, example.tools, reasoning=recipe.train.reasoning)
            found[f"{Path(file).stem}: {example.source or example.id}"] = digest_json(ids)
    return found


def check_there(recipe: Recipe, model: str, train: str | None, test: str, asked: Mapping[str, str]) -> None:
    """Hold the engine's environment to the same requests and to the rows' answers, as a task there.

    asked: of `compare`. Raises RunnerError at the first row that differs.
    """
    files, chosen = _files(train, test), asked_in(recipe)
    if chosen:
        require_same_requests(chosen.name, asked, asked_digests(recipe, model, files))
    if needs_reading(recipe):
        check_answers(recipe, model, files)


def require_same_requests(environment: str, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise RunnerError naming a row of which the environment makes another request. here, there: `asked_digests`."""
    row = next((row for row in {**here, **there} if here.get(row) != there.get(row)), None)
    if row is not None:
        raise RunnerError(
            f"{row}: the tokenizer of the environment {environment} makes another request of this row than the "
            "runner's, so training would learn what no request asks",
            f"Pin the same tokenizers and transformers in requirements/environments/{environment}.in, or use another "
            "model.",
        )


def _files(train: str | None, test: str) -> list[str]:
    return [path for path in (train, test) if path is not None]
