"""What a trainer is, and which there are.

A trainer is a folder here: pure functions of the recipe that say what its library is told, what must hold, and what a
training will leave, and a worker that trains. Everything is imported when it is asked for. A recipe names one
(`train.trainer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from runner.cluster.environments import Chosen
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.members import Members
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import StageResources
from stages.models.trained import LongestRow, Trained
from stages.sections.recipe import Recipe
from stages.trainers.checkpoints import ADAPTER as ADAPTER
from stages.trainers.checkpoints import LOG as LOG

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate
    from stages.samples.encoder import Encoder

DEFAULT = "llamafactory"
TRAINERS = {
    DEFAULT: "stages.trainers.llamafactory.trainer:LlamaFactory",
    "accelerate": "stages.trainers.accelerate.trainer:Accelerate",
    "axolotl": "stages.trainers.axolotl.trainer:Axolotl",
}


class Trainer(Protocol):
    """What the stages ask a trainer for.

    environment: name of the environment that its workers run in (`requirements/environments`); None for the runner's
    own. libraries: distributions there whose versions affect what is trained. memory_hint: what to do when memory runs
    out. imports: what its workers import first; none of it may use a GPU while it is imported.
    """

    environment: ClassVar[str | None]
    imports: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]
    memory_hint: ClassVar[str]

    def rules(self) -> Sequence[Rule]:
        """Rules about the keys that only this trainer reads."""

    def mappings(self) -> Sequence[Mapped]:
        """Keys of the recipe whose values go to the library as they are."""

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        """What a person should know before the training runs, for its plan."""

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """What stands in the fingerprint for the values of `train` keys that mean nothing, or less, to this trainer."""

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        """What training will take."""

    def adapter_bytes(self, known: Known[Recipe]) -> tuple[int, str] | str:
        """Bytes of the adapter to come and what they are, or why they are not known."""

    def speed_conditions(self, values: Mapping[str, Any]) -> Conditions:
        """What a rate of training depends on. values: a recipe's as plain values, perhaps of an earlier run."""

    def trained(self, recipe: Recipe) -> Trained:
        """What the training will leave."""

    def longest_row(self, recipe: Recipe) -> LongestRow | None:
        """The length that rows are cut to; None where the recipe names none."""

    def prepare(self) -> Callable[[Recipe, str, str, str], dict[str, Any]]:
        """Called in a task with the recipe, the folders of model and train set, and one to write what the workers read.

        Returns figures of the rows; `chat_template` among them is the text that the trained weights are to carry.
        """

    def encoder(self, recipe: Recipe, template: ChatTemplate) -> Encoder:
        """What turns rows into what is learned, for the comparison with requests and for `preview`."""

    def row_remarks(self, figures: Mapping[str, Any], recipe: Recipe) -> list[str]:
        """What a person should know of the figures of `prepare`, a line each."""

    def arguments(
        self, recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str, start: str | None = None
    ) -> dict[str, Any]:
        """What the library is told: a pure function. model, dataset_dir, output_dir, tokens: folders on the worker,
        the last one as `prepare` wrote it. start: folder of the adapter that training continues. Raises RunnerError for
        an argument that is the runner's to set."""

    def lora_settings(self, recipe: Recipe) -> dict[str, tuple[str, Any]]:
        """What the recipe says of an adapter: PEFT's name -> (key of the recipe, value). {}: the trainer continues
        none."""

    def worker_env(self, resources: StageResources) -> dict[str, str]:
        """Environment of a worker."""

    def worker(self) -> Callable[[dict[str, Any]], None]:
        """Runs in each Ray Train worker, with `args`, `source` (the model's, as published), `chat_template` and
        `progress` (a ProgressHandle). Reports checkpoints and metrics to Ray Train, and last a checkpoint of ADAPTER
        and LOG with the metric `final`. Raises RunnerError for what would fail again."""

    def shards(self, args: Mapping[str, Any]) -> bool:
        """Whether a model is spread over the workers, so that even one needs a process group. args: of `arguments`."""

    def is_model_file(self, path: Path, *, code: bool = False) -> bool:
        """Whether a file belongs to the adapter or model. code: Python files may, too."""

    def log_points(self, log: Path) -> list[dict[str, Any]]:
        """The steps of a LOG folder: `current_steps`, and as far as there are `loss`, `eval_loss`, `lr` and
        `accuracy`, the share of a step's pairs whose chosen answer the model prefers.

        Raises OSError or ValueError when they are gone or damaged."""


_MEMBERS: Members[Trainer] = Members("train.trainer", "trainer", TRAINERS)


def load_trainer(recipe: Recipe) -> Trainer:
    """The trainer that the recipe names."""
    return _MEMBERS.chosen(recipe)


def trainer_named(name: str) -> Trainer:
    """The trainer of that name in TRAINERS."""
    return _MEMBERS.named(name)


def trainer_environment(recipe: Recipe) -> Chosen | None:
    """The environment of the recipe's trainer, None for the runner's own."""
    name = load_trainer(recipe).environment
    return Chosen(name, _MEMBERS.key, recipe.train.trainer) if name else None


def trainer_rules() -> tuple[Rule, ...]:
    """The rules of each trainer, for the recipes that name it."""
    return _MEMBERS.rules(lambda trainer: trainer.rules())


def trainer_mappings() -> tuple[Mapped, ...]:
    """The pass-through mappings of each trainer, for the recipes that name it."""
    return _MEMBERS.mappings(lambda trainer: trainer.mappings())
