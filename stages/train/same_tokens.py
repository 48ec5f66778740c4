"""Does the trainer's environment make the tokens that the runner's own makes?

Ingest has compared what training learns with what requests ask, with the tokenizer of the runner's environment. A
trainer in an environment of its own has another release of it, and is held to the same tokens on the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.errors import RunnerError
from runner.storage.digest import digest_json
from stages.ingest.parity import sample_of, samples_of
from stages.models.chat_template import ChatTemplate
from stages.sections.recipe import Recipe
from stages.trainers.base import load_trainer


def token_digests(recipe: Recipe, model: str, train: str) -> dict[str, str]:
    """A digest of the tokens and labels of each row that ingest compares, by the row's place, as a task.

    model: folder of the model. train: file of examples.
    """
    encoder = load_trainer(recipe).encoder(recipe, ChatTemplate.of(recipe, model))
    found = {}
    for example in sample_of(Path(train), recipe.seed):
        samples = [[sample.ids, sample.labels] for sample in samples_of(encoder, example)]
        found[example.source or example.id] = digest_json(samples)
    return found


def require_same_tokens(environment: str, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise RunnerError naming a row of which the environment makes other tokens. here, there: of `token_digests`."""
    row = next((row for row in {**here, **there} if here.get(row) != there.get(row)), None)
    if row is not None:
        raise RunnerError(
            f"{row}: the tokenizer of the environment {environment} makes other tokens of this row than the runner's, "
            "so training would learn what no request asks",
            f"Pin the runner's tokenizers and transformers in requirements/environments/{environment}.in, or use "
            "another train.trainer.",
        )
