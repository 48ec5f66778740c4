"""Ingest: the dataset's rows, checked and written for training and testing, and the base model on local disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from runner.cluster.session import run_tasks
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.pipeline.results import FinishedRun, Part
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact
from runner.text import size_text
from stages.data import rules
from stages.ingest import rules as conversation_rules
from stages.ingest.answers import check_answers, needs_reading
from stages.ingest.data import prepare_data
from stages.ingest.identity import looks, model_meaning, rows_meaning
from stages.ingest.parity import check_parts
from stages.ingest.rows.choose import samples
from stages.models import obtain as models
from stages.models.chat_template import template_meaning, with_template_text
from stages.models.known import MODEL, conditions
from stages.sections.model import is_local

if TYPE_CHECKING:
    from runner.pipeline.context import RunContext
    from runner.recipe.schema import StageResources
    from stages.sections.dataset import Dataset
    from stages.sections.recipe import Recipe

_UPDATE_EVERY_S = 0.5


class Ingest:
    """Makes `train_set` (train.jsonl, val.jsonl) and `test_set` (test.jsonl), each line an Example, and `model`."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = (
        "seed", "dataset.source", "dataset.files", "dataset.split", "dataset.max_rows", "dataset.max_rows_by",
        "dataset.prompt", "dataset.ignore_keys", "dataset.roles", "dataset.on_bad_row", "dataset.endpoint_url",
        "model.source", "model.revision", "storage.endpoint_url", "model.trust_remote_code", "model.template",
        "model.chat_template",
        "model.chat_template_kwargs", "model.tool_parser", "model.reasoning_parser", "train.stage", "train.reasoning",
    )  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    provides: ClassVar[tuple[str, ...]] = ("train_set", "test_set", "model")
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ()

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """Local files by their content, generated rows by the grammar's settings; None for what sources do not use."""
        seed = {} if recipe.dataset.split or _draws(recipe.dataset) else {"seed": None}
        return seed | rows_meaning(recipe) | model_meaning(recipe) | template_meaning(recipe)

    def outside(self, recipe: Recipe) -> Mapping[str, Callable[[], Any]]:
        """What lies behind a remote source by its tags, such as an object's ETag."""
        return looks(recipe)

    def rules(self) -> Sequence[Rule]:
        return (*rules.RULES, *conversation_rules.RULES)

    def page(self, run: FinishedRun) -> Part:
        from stages.ingest.page import page

        return page(run)

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        from stages.ingest.estimate import estimate

        return estimate(known)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*MODEL, "dataset.source", "dataset.prompt", "dataset.max_rows"))

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Prepare the data and obtain the model, concurrently where the cluster has resources for both.

        Raises RunnerError naming file and line of bad rows, and whatever cannot be fetched.
        """
        recipe = with_absolute_paths(ctx.recipe)
        folder = ctx.stage_dir.absolute()
        calls = [(part, recipe, folder, ctx.progress(), ctx.resources) for part in ("data", "model")]
        data, model = ctx.ray.call_each(do_part, ctx.resources, calls)
        for line in data.remarks:
            ctx.say(line)
        trained = str(folder / "train_set" / "train.jsonl") if "train" in recipe.pipeline else None
        parts = (str(model.path), trained, str(folder / "test_set" / "test.jsonl"))
        compared = ctx.ray.call(check_parts, ctx.resources, with_template_text(recipe), *parts)
        if needs_reading(recipe):
            files = [path for path in parts[1:] if path is not None]
            ctx.ray.call(check_answers, ctx.resources, with_template_text(recipe), parts[0], files)
        rows_of = data.metrics["rows"]
        note = f"{' + '.join(f'{count:,} {split}' for split, count in rows_of.items())} rows; {_model_note(model)}"
        return StageResult(
            [*data.artifacts, model], {**data.metrics, "model_bytes": model.size_bytes, "compared": compared}, note
        )


def _draws(dataset: Dataset) -> bool:
    """Whether `max_rows` draws rows by the seed."""
    return samples(dataset) and any(limit is not None for limit in dataset.max_rows.model_dump().values())


def _model_note(model: Artifact) -> str:
    return f"{model.meta['source']} ({size_text(model.size_bytes)})"


def do_part(part: str, recipe: Recipe, folder: Path, progress: Any, resources: StageResources) -> Any:
    """One part of the stage's work, as a Ray task: `data` -> DataParts, or `model` -> Artifact."""
    update = _throttled(progress.update)
    if part == "data":
        return prepare_data(recipe, folder, update, lambda function, calls: run_tasks(function, resources, calls))
    return obtain_model(recipe, update)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with local sources as absolute paths: a task need not have this process's working directory."""
    dataset, model = recipe.dataset, recipe.model
    if "://" not in dataset.source:
        dataset = dataset.model_copy(update={"source": str(Path(dataset.source).expanduser().absolute())})
    if is_local(model.source):
        model = model.model_copy(update={"source": str(Path(model.source).expanduser().absolute())})
    return recipe.model_copy(update={"dataset": dataset, "model": model})


def obtain_model(recipe: Recipe, update: Callable[..., None]) -> Artifact:
    """The base model as an artifact. `update`: as `ProgressHandle.update`."""
    model, cache = recipe.model, Path(recipe.storage.cache).expanduser().absolute()
    folder = models.obtain_model(
        model.source, model.revision, cache, recipe.storage.endpoint_url, model.trust_remote_code,
        lambda done, total: update(done, total, "bytes"),
    )  # fmt: skip
    return models.describe_model(folder, cache, {"source": model.source, "revision": model.revision})


def _throttled(update: Callable[..., None]) -> Callable[..., None]:
    """The same, at most twice a second: a download reports every piece, and each report is a message."""
    last = 0.0

    def throttled(*args: Any, **figures: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _UPDATE_EVERY_S:
            last = now
            update(*args, **figures)

    return throttled
