"""Score the predictions, with the base model's where there are any, and judge the gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster.session import ProgressHandle
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.manifest import StageRecord
from runner.pipeline.optional import Objective, Rule
from runner.pipeline.results import FinishedRun, Outcome, Part
from runner.pipeline.stage import StageResult
from runner.recipe.schema import StageResources
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json
from stages.data.prediction import BASE, TUNED, Prediction, read_predictions
from stages.evaluate import rules
from stages.evaluate.scores import DELTA_VS_BASE, DELTA_VS_RUN, SCORES_FILE, Scores, judge
from stages.evaluate.scoring import ScoreTable
from stages.evaluate.slices import Slices
from stages.evaluators.metrics import known_metrics, load_metrics, metric_libraries
from stages.infer.shared import is_shared
from stages.models.endpoint_form import strip_thought, with_thought
from stages.models.known import MODEL, conditions
from stages.sections.evaluate import Evaluate as Keys
from stages.sections.recipe import Recipe
from stages.serve.other_runs import predictions_of_run, whole

_OTHER_RUN = "run"
_COMPARED = (TUNED, BASE, DELTA_VS_BASE, DELTA_VS_RUN)
_ROWS_PER_UPDATE = 1_000


class Evaluate:
    """Makes `scores`: scores.json, and mismatches.jsonl with every row whose answer is not exactly the reference."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 4
    reads: ClassVar[tuple[str, ...]] = (
        "evaluate.metrics",
        "evaluate.metric_args",
        "evaluate.confidence",
        "evaluate.slices",
        "evaluate.compare_run",
        "evaluate.require",
        "evaluate.reasoning",
    )
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)
    provides: ClassVar[tuple[str, ...]] = ("scores",)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The predictions and, when the pipeline publishes one, the adapter, whose digest goes into the scores."""
        return ("predictions", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def libraries_of(self, recipe: Recipe) -> Sequence[str]:
        """The distributions behind the metrics."""
        return metric_libraries(recipe.evaluate.metrics)

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """Another run by the predictions that it has."""
        if (other := recipe.evaluate.compare_run) is None:
            return {}
        with suppress(RunnerError, OSError):  # the stage says it
            found = predictions_of_run(recipe, other, "evaluate.compare_run")
            return {"evaluate.compare_run": {"run": other, "predictions": found.sha256}}
        return {}

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def summary(self, record: StageRecord | None) -> dict[str, Any]:
        """`scores`: `{tuned: {exact_match, n, ...}, base: {...}}`; empty when the stage did not run."""
        scores = record.metrics if record else {}
        return {"scores": {name: value for name, value in scores.items() if name != "gate"}}

    def objective(self, recipe: Recipe) -> str:
        return recipe.evaluate.objective

    def reached(self, summary: Mapping[str, Any], objective: str) -> Objective:
        """The adapter's score, or the base model's where there is no adapter."""
        scores = summary["scores"]
        main = scores.get(TUNED) or scores.get(BASE) or {}
        value, interval = main.get(objective), main.get(f"{objective}_ci")
        return Objective(
            None if value is None else float(value),
            None if interval is None else (interval[0], interval[1]),
            scores[BASE].get(objective) if TUNED in scores and BASE in scores else None,
        )

    def figures(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """Scores as `tuned.exact_match`, `base.exact_match`, `delta_vs_base.exact_match`."""
        nested = {name: metrics.get(name) for name in _COMPARED}
        scores = {f"{name}.{key}": v for name, of in nested.items() if isinstance(of, dict) for key, v in of.items()}
        return {name: value for name, value in metrics.items() if name not in nested} | scores

    def outcome(self, run: FinishedRun) -> Outcome:
        from stages.evaluate.outcome import outcome

        return outcome(run)

    def page(self, run: FinishedRun) -> Part:
        from stages.evaluate.page import page

        return page(run)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*MODEL, "evaluate"))

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """The scores are kept whatever the gate's verdict is; the pipeline reads it in `metrics["gate"]` and acts.

        Raises RunnerError for an unknown metric, and for a requirement that is not a comparison.
        """
        keys = ctx.recipe.evaluate
        known_metrics(keys.metrics)
        folder = ctx.stage_dir / "scores"
        folder.mkdir(exist_ok=True)
        other = None
        if keys.compare_run:
            other = predictions_of_run(ctx.recipe, keys.compare_run, "evaluate.compare_run")
            whole(other, keys.compare_run, "evaluate.compare_run")
        adapter = ctx.inputs.get("adapter")
        scores: Scores = ctx.ray.call(
            score,
            resources(ctx.recipe),
            ctx.input("predictions"),
            folder,
            keys,
            other=other,
            adapter_sha256=adapter.sha256 if adapter else None,
            progress=ctx.progress(),
        )
        return StageResult([scan_folder("scores", folder)], scores.as_dict(), note(scores))


def resources(recipe: Recipe) -> StageResources:
    """The recipe's; where it names none and the engine stays up for the endpoint, no CPU, which the engine may hold."""
    if "evaluate" not in recipe.resources and is_shared(recipe):
        return StageResources(cpus_per_worker=0.0)
    return recipe.resources_of("evaluate")


def score(
    predictions: Artifact,
    folder: Path,
    keys: Keys,
    *,
    other: Artifact | None = None,
    adapter_sha256: str | None,
    progress: ProgressHandle,
) -> Scores:
    """Score every variant in one pass over the files and write scores.json and mismatches.jsonl into the folder.

    `n` counts all test rows, those that the engine refused included; they count as wrong. The mismatches are the
    adapter's, or the base model's when there is no adapter. other: predictions of another run to compare with.
    Raises RunnerError for a requirement that is not a comparison.
    """
    variants = list(predictions.meta["variants"])
    main = TUNED if TUNED in variants else BASE
    all_variants = [*variants, *([_OTHER_RUN] if other else [])]
    table = ScoreTable(load_metrics(keys.metrics, keys.metric_args), all_variants, keys.confidence)
    slices = Slices(keys.slices)
    references: dict[str, str] = {}
    total, num_places = predictions.meta["num_rows"] * len(variants), 0
    with (folder / "mismatches.jsonl").open("w", encoding="utf-8") as mismatches:
        for count, row in enumerate(scored_rows(predictions, keys), start=1):
            place, right = table.add(row, row.variant)
            if place == num_places:
                num_places += 1
                slices.add(row)
                if other:
                    references[row.id] = row.reference
            if row.variant == main and not right:
                mismatches.write(row.line() + "\n")
            if count % _ROWS_PER_UPDATE == 0 or count == total:
                progress.update(count, total, "row")
    for row in comparable_rows(other, references, keys):
        table.add(row, _OTHER_RUN)
    scores = Scores(
        variants={variant: table.summary(variant) for variant in variants},
        metrics=keys.metrics,
        confidence=keys.confidence,
        deltas=_deltas(table, variants, keys.compare_run if other else None),
        slices={name: table.slices(label, variants) for name, label in slices.labels().items()},
        adapter_sha256=adapter_sha256,
    )
    scores = replace(scores, verdict=judge(keys.require, scores.as_dict()))
    write_json(folder / SCORES_FILE, scores.as_dict())
    return scores


def _deltas(table: ScoreTable, variants: list[str], run_id: str | None) -> dict[str, dict[str, Any]]:
    """Differences to the base model and to another run, as far as there are any."""
    deltas = {}
    if len(variants) > 1:
        deltas[DELTA_VS_BASE] = table.difference(TUNED, BASE)
    if run_id is not None:
        main = TUNED if TUNED in variants else BASE
        deltas[DELTA_VS_RUN] = {"run": run_id, **table.difference(main, _OTHER_RUN)}
    return deltas


def scored_rows(predictions: Artifact, keys: Keys) -> Iterator[Prediction]:
    """Every prediction as it is scored: without reasoning, unless `evaluate.reasoning` keeps it."""
    for row in read_predictions(predictions):
        if keys.reasoning == "keep":
            yield replace(
                row,
                prediction=with_thought(row.prediction, row.reasoning),
                reference=with_thought(row.reference, row.expected_reasoning),
            )
        else:
            yield replace(row, prediction=strip_thought(row.prediction), reference=strip_thought(row.reference))


def comparable_rows(other: Artifact | None, references: Mapping[str, str], keys: Keys) -> Iterator[Prediction]:
    """The other run's main predictions for rows that this run has too, with the same reference."""
    if other is None:
        return
    main = TUNED if TUNED in other.meta["variants"] else BASE
    for row in scored_rows(other, keys):
        if row.variant == main and references.get(row.id) == row.reference:
            yield row


def note(scores: Scores) -> str:
    """One line such as `exact match 0.72 [0.62, 0.80] of 100 · base 0.00 · +0.72`, and whether the gate refused."""
    main, name = scores.main, scores.metrics[0]
    interval = "[{:.2f}, {:.2f}] ".format(*main[f"{name}_ci"]) if f"{name}_ci" in main else ""
    parts = [f"{name.replace('_', ' ')} {main[name]:.2f} {interval}of {main['n']}"]
    if {TUNED, BASE} <= set(scores.variants):
        base = scores.variants[BASE][name]
        parts += [f"base {base:.2f}", f"{main[name] - base:+.2f}"]
    if main["num_errors"]:
        parts.append(f"{main['num_errors']} refused by the engine, counted as wrong")
    if not scores.verdict.passed:
        parts.append("gate refused")
    return " · ".join(parts)
