"""What an inference engine is, and which there are.

An engine is a folder here: pure functions of the recipe that say what the engine is told, what must hold and what it
takes, and what runs in its processes. Everything is imported when it is asked for. A recipe names one, for batch
inference and the endpoint (`infer.backend`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from runner.cluster.environments import Chosen
from runner.cluster.environments.ahead import ImportAhead
from runner.errors import Problem, RunnerError
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.members import Members
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from stages.engines.work import Answers, Work
from stages.models.chat_template import ChatTemplate
from stages.models.trained import LongestRow, Trained
from stages.sections.model import Model
from stages.sections.recipe import Recipe

DEFAULT = "vllm"
RUNS_IN = "environment"  # of `experimental_configs`: name of the replicas' environment, and the digest of its lock
ENGINES = {DEFAULT: "stages.engines.vllm.engine:Vllm"}


class BatchLimits(NamedTuple):
    """Of batch inference. prompt: most tokens of a prompt, None where only the model says; made_of: what that is.
    answer: most tokens of an answer. at_once: prompts that an engine answers at once. block: tokens of a prompt's
    beginning that prompts share or do not, None where each prompt is computed as a whole."""

    prompt: int | None
    made_of: str
    answer: int
    at_once: int
    block: int | None


class BatchEngine(Protocol):
    """What batch inference asks an engine for."""

    def batch_mappings(self) -> Sequence[Mapped]:
        """Keys of batch inference whose values go to the engine as they are."""

    def batch_estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        """Memory of an engine of batch inference."""

    def batch_limits(self, recipe: Recipe) -> BatchLimits:
        """What the recipe's arguments, or the engine's own values for what it leaves out, allow."""

    def kwargs_for(self, prompt: int, answer: int) -> dict[str, Any]:
        """`infer.engine_kwargs` that hold a prompt and an answer of so many tokens."""

    def batch_runtime_env(self, recipe: Recipe, imported: ImportAhead) -> dict[str, Any]:
        """Ray's runtime environment of the engines of batch inference. imported: begins their imports, and is called
        when there is a cluster."""

    def generate(
        self, recipe: Recipe, pieces: list[dict[str, Any]], work: Work, runtime_env: Mapping[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """The results of the pieces' rows (`Work.tell`), in the order in which the engines finish them. runtime_env: as
        of `batch_runtime_env`."""

    def answers(self, model: Model, template: ChatTemplate) -> Answers:
        """How tools are asked for and answers read, by the recipe's parsers. template: with the model's tokenizer."""

    def parsers(self, model: str) -> dict[str, str]:
        """Keys of `model` by which answers of a model's family are read, as far as its name tells them: the usual
        `tool_parser` and `reasoning_parser`, and a `chat_template` that writes reasoning where its own does not."""

    def batch_failure(self, error: BaseException, since: float) -> RunnerError:
        """Why batch inference stopped. since: when it began (Unix time, s)."""

    def hint_for(self, reason: str) -> str:
        """What to do about an engine that failed, or refused every row, for that reason."""


class ServerEngine(Protocol):
    """What the endpoint asks an engine for. server: import path of the class that Ray Serve runs as a replica; its
    objects have `answer_piece` as well, for batch inference on the endpoint's engine."""

    server: ClassVar[str]

    def server_mappings(self) -> Sequence[Mapped]:
        """Keys of the endpoint whose values go to the engine as they are."""

    def server_estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        """Memory of an engine of the endpoint."""

    def server_kwargs(self, recipe: Recipe, *, with_adapters: bool) -> dict[str, Any]:
        """The engine's arguments at the endpoint."""

    def server_config(
        self, recipe: Recipe, model_path: str, adapters: str | None, env: Mapping[str, str]
    ) -> dict[str, Any]:
        """What a replica is made of, in the form of `ray.serve.llm.LLMConfig`, of JSON values. An environment of its
        own is named in `experimental_configs` (RUNS_IN); its interpreter is that of the cluster that builds it.

        model_path: the model's folder. adapters: URI of the folder of adapters, None for the base model alone.
        env: environment variables of the replicas; the recipe's own runtime_env wins over them.
        """

    def server_env(self, recipe: Recipe) -> dict[str, str]:
        """Environment of the replicas, besides what the recipe's `runtime_env` has."""

    def server_hint(self, reason: str) -> str | None:
        """What to do about a replica that did not start for that reason; None where only its log can tell."""

    def num_bundles(self, recipe: Recipe) -> int:
        """Workers of all replicas that are there from the start."""

    def with_rank(self, recipe: Recipe, rank: int, whose: str) -> dict[str, Any]:
        """`serve.engine_kwargs` with slots for an adapter of that rank, too. whose: the adapter, for messages.

        Raises RunnerError when the recipe's own arguments are too small for it."""


class Engine(BatchEngine, ServerEngine, Protocol):
    """What the stages ask an engine for.

    environment: name of the environment that it runs in (`requirements/environments`), for batch inference and the
    endpoint; None for the runner's own. libraries: distributions there whose versions affect the answers.
    without_effect: arguments that change no answer. for_adapters: arguments that prepare the engine for adapters and
    change no answer of the base model. ranks_argument: the argument that asks for more processes of one engine.
    """

    ranks_argument: ClassVar[str]
    environment: ClassVar[str | None]
    libraries: ClassVar[tuple[str, ...]]
    without_effect: ClassVar[tuple[str, ...]]
    for_adapters: ClassVar[tuple[str, ...]]

    def rules(self) -> Sequence[Rule]:
        """Rules about the keys that only this engine reads, in batch inference and at the endpoint."""

    def differing(self, recipe: Recipe) -> Iterator[tuple[str, Any]]:
        """Name and the endpoint's value of each argument for which batch inference would need another engine."""

    def ranks(self, kwargs: Mapping[str, Any]) -> int:
        """Processes of one engine with these arguments, each of which computes on a GPU of its own."""

    def refused(self, trained: Trained) -> Iterator[Problem]:
        """What a training will leave that the engine cannot load."""

    def start_state(self) -> str:
        """What the engine on this machine that is starting does, in a few words (`loading the weights`); "" where
        nothing tells it. Of the cluster that this process has started."""

    def requests_fit(self, recipe: Recipe, prompt: LongestRow | None) -> Iterator[Problem]:
        """Prompts and answers that are too long for the engine. prompt: as long as it may have been in training."""


_MEMBERS: Members[Engine] = Members("infer.backend", "engine", ENGINES)


def load_engine(recipe: Recipe) -> Engine:
    """The engine that the recipe names."""
    return _MEMBERS.chosen(recipe)


def start_state(recipe: Recipe) -> Callable[[], str]:
    """What tells what the recipe's engine does while it starts: `start_state` of the engine on the run's own cluster,
    "" always on one that may have the logs of other engines."""
    return load_engine(recipe).start_state if recipe.cluster.address is None else str


def engine_environment(recipe: Recipe) -> Chosen | None:
    """The environment of the recipe's engine, None for the runner's own."""
    name = load_engine(recipe).environment
    return Chosen(name, _MEMBERS.key, recipe.infer.backend) if name else None


def engine_named(name: str) -> Engine:
    """The engine of that name in ENGINES."""
    return _MEMBERS.named(name)


def engine_rules() -> tuple[Rule, ...]:
    """The rules of each engine, for the recipes that name it."""
    return _MEMBERS.rules(lambda engine: engine.rules())


def batch_mappings() -> tuple[Mapped, ...]:
    """The pass-through mappings of batch inference of each engine, for the recipes that name it."""
    return _MEMBERS.mappings(lambda engine: engine.batch_mappings())


def server_mappings() -> tuple[Mapped, ...]:
    """The pass-through mappings of the endpoint of each engine, for the recipes that name it."""
    return _MEMBERS.mappings(lambda engine: engine.server_mappings())
