"""Predict the test set with base model and adapter, by `ray.data.llm` and vLLM."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster.environments import Chosen
from runner.cluster.session import check_fits
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule, Workers
from runner.pipeline.results import FinishedRun, Part
from runner.pipeline.stage import StageResult
from runner.recipe.arguments.mapped import Mapped
from runner.storage.artifact import scan_folder
from runner.storage.atomic import read_state, write_state
from runner.text import count_text
from stages.data.prediction import BASE, TUNED
from stages.engines.base import Engine as Backend
from stages.engines.base import batch_mappings, engine_environment, engine_rules, load_engine, start_state
from stages.infer import base_ahead, rules
from stages.infer.base import base_file, keep, made_once, reuse_kept
from stages.infer.figures import Figures, collect, continued_text, note, telling_start
from stages.infer.journal import JOURNAL, Journal
from stages.infer.predictions import write_parts
from stages.infer.requests import Engine, PredictionWork, RowFile, rows_per_chunk
from stages.infer.sampling import drawn_by_seed
from stages.infer.shared import is_shared, shared_models
from stages.infer.shared import predict as predict_shared
from stages.infer.shared import warm_up as warm_up_shared
from stages.ingest.canonical import without
from stages.models.adapter import CONFIG, largest_rank
from stages.models.chat_template import template_meaning, with_template_text
from stages.models.known import ENGINE, conditions
from stages.sections.recipe import Recipe
from stages.serve.health import Progress, starting

PREDICTIONS = "predictions"
FINISHED = "finished.json"  # digest and figures of a complete `predictions`, until the run's record says so


class Infer:
    """Makes `predictions`: of each test row by the adapter (`tuned`) and, if asked for, by the base model (`base`)."""

    name: ClassVar[str] = "infer"
    version: ClassVar[int] = 6
    reads: ClassVar[tuple[str, ...]] = (
        "seed",
        "model.trust_remote_code",
        "model.chat_template",
        "model.chat_template_kwargs",
        "model.tool_parser",
        "model.reasoning_parser",
        "train.reasoning",
        "infer.backend",
        "infer.engine_kwargs",
        "infer.sampling",
        "evaluate.compare_base",
        "cluster.accelerator",
    )
    libraries: ClassVar[tuple[str, ...]] = ("ray", "transformers")
    provides: ClassVar[tuple[str, ...]] = (PREDICTIONS,)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The test set, the model and, when the pipeline publishes one, the adapter."""
        return ("test_set", "model", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def libraries_of(self, recipe: Recipe) -> Sequence[str]:
        return load_engine(recipe).libraries

    def environment(self, recipe: Recipe) -> Chosen | None:
        return engine_environment(recipe)

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """The seed only where answers are drawn at random by it."""
        kwargs = without(recipe.infer.engine_kwargs, load_engine(recipe).without_effect)
        return {
            "infer.engine_kwargs": kwargs,
            **template_meaning(recipe),
            **({} if drawn_by_seed(recipe) else {"seed": None}),
        }

    def warm_up(self, ctx: RunContext[Recipe], running_stage: str) -> str:
        """Start the shared engine, if there is capacity for it next to the stage that runs; of another the libraries.

        The base model, which needs nothing that is still to be made, predicts as soon as the engine is there.
        """
        if not is_shared(ctx.recipe):
            return self._import(ctx, running_stage)
        started = warm_up_shared(ctx, running_stage)
        if started:
            base_ahead.start(ctx, self)
        return started

    def _import(self, ctx: RunContext[Recipe], running_stage: str) -> str:
        """Begin to import the libraries of the stage's own engine, not before the stage that takes long."""
        busy = ctx.recipe.resources_of(running_stage)
        waits = "train" in ctx.recipe.pipeline and running_stage != "train"
        if waits or ctx.recipe.cluster.address is not None or not ctx.ray.has_idle_cpus(busy, busy.most_workers):
            return ""
        import_ahead(ctx)
        return "the import of its libraries"

    def rules(self) -> Sequence[Rule]:
        return (*rules.RULES, *engine_rules())

    def mappings(self) -> Sequence[Mapped]:
        return batch_mappings()

    def page(self, run: FinishedRun) -> Part:
        from stages.infer.page import page

        return page(run)

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        from stages.infer.estimate import estimate

        return estimate(known)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*ENGINE, "infer.sampling", "infer.batch_size", "infer.concurrency"))

    def workers(self, recipe: Recipe) -> Workers:
        engine = load_engine(recipe)
        ranks = engine.ranks(recipe.infer.engine_kwargs)
        return Workers(
            recipe.infer.concurrency * ranks,
            f"infer.engine_kwargs.{engine.ranks_argument}",
            "infer.concurrency x parallel ranks = ",
            ranks,
            "infer.concurrency",
        )

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Predict what is not in the journal of an interrupted attempt with this fingerprint, then write it all down.

        Raises RunnerError when an engine does not start or keeps dying, when it refuses every row or loses one.
        """
        begin, backend = time.time(), load_engine(ctx.recipe)
        if result := finished(ctx.stage_dir, ctx.fingerprint):
            return result
        rows = RowFile.scan(ctx.input("test_set").path / "test.jsonl", rows_per_chunk(ctx.recipe))
        shared = is_shared(ctx.recipe)
        if shared:
            engines = [shared_models(ctx.recipe, ctx.input("model").path, ctx.inputs.get("adapter"))]
        else:
            engines = list(plan_engines(ctx.recipe, ctx.input("model").path, local_adapter(ctx)))
        variants = [variant for engine in engines for variant in engine.models]
        progress = ctx.progress()
        if not shared:
            import_ahead(ctx)
            check_fits(
                ctx.resources,
                ctx.recipe.infer.concurrency * backend.ranks(ctx.recipe.infer.engine_kwargs),
                "resources.infer",
            )
        kept = base_file(ctx.recipe, self, ctx.inputs) if BASE in variants else None
        with ExitStack() as held:
            if kept:
                held.enter_context(made_once(kept, lambda message: ctx.say(f"  {self.name} waits: {message}")))
            path = ctx.stage_dir / JOURNAL
            journal = held.enter_context(Journal(path, rows.num_rows, variants, identity=ctx.fingerprint))
            continued = continued_text(journal)
            if kept and (taken := reuse_kept(kept, journal, rows.num_rows)):
                are = count_text(taken, "prediction of the base model is", "predictions of the base model are")
                ctx.say(f"  {self.name}: {are} reused")
            figures = Figures(begin, continued=journal.count)
            if continued:
                ctx.say(f"  {self.name}: {continued}")
            state = "; ".join(filter(None, (continued, "starting the engine")))
            progress.update(journal.count, journal.num_expected, "prediction", state=state)
            try:
                for engine in engines:
                    chunks = rows.missing(list(engine.models), journal.is_done)
                    if chunks:
                        ask = partial(predict_shared if shared else predict, ctx)
                        batches = ask(rows.path, chunks, engine)
                        if not shared:
                            tell = partial(tell_start, journal, progress)
                            batches = telling_start(batches, tell, start_state(ctx.recipe))
                        collect(batches, journal, figures, progress)
            except RunnerError:
                raise
            except Exception as error:
                raise backend.batch_failure(error, begin) from error
            if kept:
                keep(kept, journal, variants, rows.num_rows)
            ctx.ray.forget_imports(backend.environment)
            return finish(ctx, journal, variants, figures, backend)


def tell_start(journal: Journal, progress: Progress, engine_does: str) -> None:
    """Report how far the stage is while its engine starts."""
    progress.update(journal.count, journal.num_expected, "prediction", state=starting(engine_does))


def finished(stage_dir: Path, fingerprint: str) -> StageResult | None:
    """What an attempt made that was complete but for its record; None when there is none or its files have changed."""
    path = stage_dir / FINISHED
    try:
        values = read_state(path)
    except (RunnerError, OSError):  # damaged, or not there
        return None
    if values["fingerprint"] != fingerprint:
        return None
    artifact = scan_folder(PREDICTIONS, stage_dir / PREDICTIONS, values["meta"])
    if artifact.sha256 != values["sha256"]:
        return None
    return StageResult([artifact], values["metrics"], note(values["metrics"]))


def finish(
    ctx: RunContext[Recipe], journal: Journal, variants: list[str], figures: Figures, backend: Backend
) -> StageResult:
    """The journal as the stage's artifact, in the rows' order. Raises RunnerError unless it holds every prediction."""
    stage_dir, fingerprint = ctx.stage_dir, ctx.fingerprint
    journal.check_complete()
    if journal.num_errors == journal.count:
        journal.discard()  # the engine's refusals may not hold any more when the run is repeated
        raise RunnerError(f"the engine refused every row: {journal.refusal}", backend.hint_for(journal.refusal))
    write_parts(stage_dir / PREDICTIONS, journal.lines())
    num_rows = journal.num_expected // len(variants)
    artifact = scan_folder(PREDICTIONS, stage_dir / PREDICTIONS, {"variants": variants, "num_rows": num_rows})
    metrics = {"num_rows": num_rows, "variants": variants, **figures.summary(journal)}
    done = {"fingerprint": fingerprint, "sha256": artifact.sha256, "meta": artifact.meta, "metrics": metrics}
    write_state(stage_dir / FINISHED, done)
    journal.discard()
    return StageResult([artifact], metrics, note(metrics))


def plan_engines(recipe: Recipe, model: Path, adapter: Path | None) -> Iterator[Engine]:
    """One engine for base model and adapter together; two when the adapter is a whole model of its own."""
    base = {BASE: str(model)} if adapter is None or recipe.evaluate.compare_base else {}
    if adapter is None:
        yield Engine(str(model), base)
    elif (adapter / CONFIG).is_file():
        yield Engine(str(model), {TUNED: str(adapter), **base}, largest_rank((adapter / CONFIG).read_bytes()))
    elif (adapter / "config.json").is_file():
        yield Engine(str(adapter), {TUNED: str(adapter)})
        if base:
            yield Engine(str(model), base)
    else:
        raise RunnerError(
            f"{adapter} holds neither a LoRA adapter (adapter_config.json) nor a model (config.json)",
            "Train and publish again: `force=[train,publish]`.",
        )


def local_adapter(ctx: RunContext[Recipe]) -> Path | None:
    """Folder of the published adapter, in the run's folder if it is published in an object store; None without one."""
    if "adapter" not in ctx.inputs:
        return None
    artifact = ctx.input("adapter")
    if "://" not in artifact.uri:
        return artifact.path
    from runner.storage.store import open_store

    store = open_store(ctx.recipe.storage.artifacts, endpoint_url=ctx.recipe.storage.endpoint_url)
    return store.fetch(artifact, ctx.stage_dir / "adapter").path


def predict(
    ctx: RunContext[Recipe], path: Path, chunks: list[dict[str, Any]], engine: Engine
) -> Iterator[list[dict[str, Any]]]:
    """Predictions of pieces of the test set as `answer` makes them, in the order in which the engine finishes them."""
    work = PredictionWork(path, with_template_text(ctx.recipe), engine)
    yield from load_engine(ctx.recipe).generate(ctx.recipe, chunks, work, import_ahead(ctx))


def import_ahead(ctx: RunContext[Recipe]) -> dict[str, Any]:
    """The runtime environment of an engine of the stage's own, whose libraries are imported from the first call on."""
    ctx.ray.start()
    return load_engine(ctx.recipe).batch_runtime_env(ctx.recipe, ctx.ray.import_ahead)
