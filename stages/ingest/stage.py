"""Ingest: the dataset's rows, checked and written for training and testing, and the base model on local disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from runner.cluster.environments import Chosen
from runner.cluster.reach import is_this_machine
from runner.cluster.session import run_tasks
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.pipeline.results import FinishedRun, Part
from runner.pipeline.runs import check_writable
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact
from runner.text import size_text
from stages.data import rules
from stages.ingest import rules as conversation_rules
from stages.ingest.answers import needs_reading
from stages.ingest.asked import asked_elsewhere, asked_in, compare, learned_in, look_there, require_alike
from stages.ingest.data import DataParts, prepare_data
from stages.ingest.identity import looks, model_meaning, rows_meaning
from stages.ingest.model import converted_in, fetch_model, resources_there, throttled
from stages.ingest.rows.choose import samples
from stages.models.chat_template import template_meaning, with_template_text
from stages.models.known import MODEL, conditions
from stages.samples import without_torch
from stages.sections.model import is_local

if TYPE_CHECKING:
    from runner.pipeline.context import RunContext
    from runner.recipe.schema import StageResources
    from stages.sections.dataset import Dataset
    from stages.sections.recipe import Recipe


class Ingest:
    """Makes `train_set` (train.jsonl, val.jsonl) and `test_set` (test.jsonl), each line an Example, and `model`."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 7
    reads: ClassVar[tuple[str, ...]] = (
        "seed", "dataset.source", "dataset.files", "dataset.split", "dataset.max_rows", "dataset.max_rows_by",
        "dataset.prompt", "dataset.ignore_keys", "dataset.roles", "dataset.on_bad_row", "dataset.endpoint_url",
        "model.source", "model.revision", "storage.endpoint_url", "model.trust_remote_code", "model.template",
        "model.chat_template",
        "model.chat_template_kwargs", "model.tool_parser", "model.reasoning_parser", "train.stage", "train.reasoning",
    )  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ("train_set", "test_set", "model")
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ()

    def called_environments(self, recipe: Recipe) -> Sequence[Chosen]:
        """Where the model is converted, and where rows are rendered as they are learned and as they are asked."""
        return [each for each in (converted_in(recipe), learned_in(recipe), asked_in(recipe)) if each]

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """Local files by their content, generated rows by the grammar's settings; None for what sources do not use."""
        seed = {} if recipe.dataset.split or _draws(recipe.dataset) else {"seed": None}
        return seed | rows_meaning(recipe) | model_meaning(recipe) | template_meaning(recipe)

    def outside(self, recipe: Recipe) -> Mapping[str, Callable[[], Any]]:
        """What lies behind a remote source by its tags, such as an object's ETag."""
        return looks(recipe)

    def destinations(self, recipe: Recipe) -> Mapping[str, Callable[[], object]]:
        """The cache, where models are kept."""
        here = is_this_machine(recipe.cluster.address)
        return {"storage.cache": partial(check_writable, recipe.storage.cache)} if here else {}

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
        if without_torch.likely(recipe):
            _comparing(ctx, recipe)
        data, model = ctx.ray.call_together(
            (read_data, ctx.resources, (recipe, folder, ctx.progress(), ctx.resources)),
            (fetch_model, resources_there(ctx.resources, converted_in(recipe)), (recipe, ctx.progress())),
        )
        for line in data.remarks:
            ctx.say(line)
        trained = str(folder / "train_set" / "train.jsonl") if "train" in recipe.pipeline else None
        parts = (str(model.path), trained, str(folder / "test_set" / "test.jsonl"))
        asking = with_template_text(recipe)
        rows_of = data.metrics["rows"]
        ctx.progress().update(sum(rows_of.values()), None, "rows", state="rendered as they are learned and asked")
        begin = time.monotonic()
        compared, remarks = _compared(ctx, asking, parts)
        compare_s = round(time.monotonic() - begin, 2)
        for line in remarks:
            ctx.say(line)
        note = f"{' + '.join(f'{count:,} {split}' for split, count in rows_of.items())} rows; {_model_note(model)}"
        figures = {"model_bytes": model.size_bytes, "compared": compared, "compare_s": compare_s}
        if lines := [*data.remarks, *remarks]:
            figures |= {"remarks": lines}
        return StageResult([*data.artifacts, model], {**data.metrics, **figures}, note)


def _compared(ctx: RunContext[Recipe], recipe: Recipe, parts: tuple[str, str | None, str]) -> tuple[int, list[str]]:
    """How many rows are learned as they are asked, by the trainer's environment and the engine's, side by side, and
    remarks on them.

    parts: the model's folder, the training rows, the test rows. Raises RunnerError at the first that differs.
    """
    if without_torch.possible(recipe, Path(parts[0])):
        learning, asking = _comparing(ctx, recipe)
    else:
        learning, asking = (resources_there(ctx.resources, each) for each in (learned_in(recipe), asked_in(recipe)))
    here = (compare, learning, (recipe, *parts))
    if not asked_elsewhere(recipe) and not needs_reading(recipe):
        (found,) = ctx.ray.call_together(here)
        return found.compared, found.remarks
    found, there = ctx.ray.call_together(here, (look_there, asking, (recipe, *parts)))
    require_alike(recipe, found.asked, there)
    return found.compared, found.remarks


def _comparing(ctx: RunContext[Recipe], recipe: Recipe) -> list[StageResources]:
    """Resources of the trainer's and of the engine's task, without torch: their libraries are imported from the first
    call on. The engine's parsers of answers need torch."""
    found = []
    for chosen, needs_torch in ((learned_in(recipe), False), (asked_in(recipe), needs_reading(recipe))):
        there = resources_there(ctx.resources, chosen)
        if not needs_torch:
            there = without_torch.in_own_process(there, chosen.name if chosen else None, ctx.ray.import_ahead)
        found.append(there)
    return found


def _draws(dataset: Dataset) -> bool:
    """Whether `max_rows` draws rows by the seed."""
    return samples(dataset) and any(limit is not None for limit in dataset.max_rows.model_dump().values())


def _model_note(model: Artifact) -> str:
    return f"{model.meta['source']} ({size_text(model.size_bytes)})"


def read_data(recipe: Recipe, folder: Path, progress: Any, resources: StageResources) -> DataParts:
    """Prepare the rows, as a task. progress: a `ProgressHandle`."""
    update = throttled(progress.update)
    return prepare_data(recipe, folder, update, lambda function, calls: run_tasks(function, resources, calls))


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with local sources as absolute paths: a task need not have this process's working directory."""
    dataset, model = recipe.dataset, recipe.model
    if "://" not in dataset.source:
        dataset = dataset.model_copy(update={"source": str(Path(dataset.source).expanduser().absolute())})
    if is_local(model.source):
        model = model.model_copy(update={"source": str(Path(model.source).expanduser().absolute())})
    return recipe.model_copy(update={"dataset": dataset, "model": model})
