"""Score the predictions, beside the base model's where there are any, and judge the gate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster.session import ProgressHandle
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.optional import Rule
from runner.pipeline.stage import StageResult
from runner.recipe.comparison import HOW_TO_WRITE, parse_comparison
from runner.recipe.schema import Evaluate as Keys
from runner.recipe.schema import Recipe, StageResources
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json
from stages.evaluate import rules
from stages.evaluate.scoring import ScoreTable
from stages.evaluate.slices import Slices
from stages.evaluators.metrics import known_metrics, load_metrics
from stages.infer.predictions import BASE, TUNED, prediction_rows
from stages.infer.shared import is_shared
from stages.serve.other_runs import predictions_of_run

DELTA_VS_BASE, DELTA_VS_RUN = "delta_vs_base", "delta_vs_run"
_OTHER_RUN = "run"
_ROWS_PER_UPDATE = 1_000
# How the scores are to be read; it stands in scores.json and in the report.
_DENOMINATOR = "all test rows: a row that the engine refused counts as wrong"


class Evaluate:
    """Makes `scores`: scores.json, and mismatches.jsonl with every row whose answer is not exactly the reference."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = (
        "evaluate.metrics",
        "evaluate.metric_args",
        "evaluate.confidence",
        "evaluate.slices",
        "evaluate.compare_run",
        "evaluate.require",
    )
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ("scores",)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The predictions and, when the pipeline publishes one, the adapter, whose digest goes into the scores."""
        return ("predictions", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def run(self, ctx: RunContext) -> StageResult:
        """The gate's verdict is `metrics["gate"]`: the scores are kept whatever it is, and the engine acts on it.

        Raises RunnerError for an unknown metric, and for a requirement that is no comparison.
        """
        keys = ctx.recipe.evaluate
        known_metrics(keys.metrics)
        folder = ctx.stage_dir / "scores"
        folder.mkdir(exist_ok=True)
        other = predictions_of_run(ctx.recipe, keys.compare_run, "evaluate.compare_run") if keys.compare_run else None
        adapter = ctx.inputs.get("adapter")
        scores = ctx.ray.call(
            score,
            resources(ctx.recipe),
            ctx.input("predictions"),
            folder,
            keys,
            other=other,
            adapter_sha256=adapter.sha256 if adapter else None,
            progress=ctx.progress(),
        )
        gate = judge(keys.require, scores)
        return StageResult([scan_folder("scores", folder)], {**scores, "gate": gate}, note(scores, gate))


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
) -> dict[str, Any]:
    """Score every variant in one pass over the files and write scores.json and mismatches.jsonl into the folder.

    `n` counts all test rows, those that the engine refused included; they count as wrong. The mismatches are the
    adapter's, or the base model's when there is no adapter. other: predictions of another run to compare with.
    Returns what scores.json holds.
    """
    variants = list(predictions.meta["variants"])
    main = TUNED if TUNED in variants else BASE
    all_variants = [*variants, *([_OTHER_RUN] if other else [])]
    table = ScoreTable(load_metrics(keys.metrics, keys.metric_args), all_variants, keys.confidence)
    slices = Slices(keys.slices)
    references: dict[str, str] = {}
    total, num_places = predictions.meta["num_rows"] * len(variants), 0
    with (folder / "mismatches.jsonl").open("w", encoding="utf-8") as mismatches:
        for count, row in enumerate(prediction_rows(predictions), start=1):
            place, right = table.add(row, row["variant"])
            if place == num_places:
                num_places += 1
                slices.add(row)
                if other:
                    references[row["id"]] = row["reference"]
            if row["variant"] == main and not right:
                mismatches.write(json.dumps(row, ensure_ascii=False) + "\n")
            if count % _ROWS_PER_UPDATE == 0 or count == total:
                progress.update(count, total, "row")
    for row in comparable_rows(other, references):
        table.add(row, _OTHER_RUN)
    scores: dict[str, Any] = {variant: table.summary(variant) for variant in variants}
    scores |= {"metrics": keys.metrics, "denominator": _DENOMINATOR, "confidence": keys.confidence}
    if len(variants) > 1:
        scores[DELTA_VS_BASE] = table.difference(TUNED, BASE)
    if other:
        scores[DELTA_VS_RUN] = {"run": keys.compare_run, **table.difference(main, _OTHER_RUN)}
    scores["slices"] = {name: table.slices(label, variants) for name, label in slices.labels().items()}
    scores["adapter_sha256"] = adapter_sha256
    write_json(folder / "scores.json", scores)
    return scores


def comparable_rows(other: Artifact | None, references: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The other run's main predictions for rows that this run has too, with the same reference."""
    if other is None:
        return
    main = TUNED if TUNED in other.meta["variants"] else BASE
    for row in prediction_rows(other):
        if row["variant"] == main and references.get(row["id"]) == row["reference"]:
            yield row


def judge(require: Mapping[str, str], scores: Mapping[str, Any]) -> dict[str, Any]:
    """`{passed, missed}`: what of `evaluate.require` does not hold. What was not measured does not hold.

    Raises RunnerError for a requirement that is no comparison (the recipe's checks have refused it before).
    """
    missed = []
    for name, text in require.items():
        comparison = parse_comparison(text)
        if comparison is None:
            raise RunnerError(f"evaluate.require.{name}={text!r} is not a comparison", HOW_TO_WRITE)
        value = measured(name, scores)
        if value is None:
            missed.append(f"{name} was not measured; {comparison} is required")
        elif not comparison.holds(value):
            off = abs(value - comparison.limit)
            missed.append(f"{name} is {value:.4g}; {comparison} is required (off by {off:.4g})")
    return {"passed": not missed, "missed": missed}


def measured(name: str, scores: Mapping[str, Any]) -> float | None:
    """The figure that a requirement names, or None when there is none.

    A metric's name means the adapter's (the base model's when there is no adapter), `base.<metric>` the base model's,
    `delta_vs_base` the difference of exact match, `delta_vs_base.<metric>` that of another metric; so `delta_vs_run`.
    """
    section, _, metric = name.partition(".")
    if section in (DELTA_VS_BASE, DELTA_VS_RUN):
        found = scores.get(section, {}).get(metric or "exact_match")
    elif section == BASE and metric:
        found = scores.get(BASE, {}).get(metric)
    else:
        found = (scores.get(TUNED) or scores.get(BASE) or {}).get(name)
    return None if found is None else float(found)


def note(scores: Mapping[str, Any], gate: Mapping[str, Any]) -> str:
    """One line such as `exact match 0.72 [0.62, 0.80] of 100 · base 0.00 · +0.72`, and the gate's no."""
    main = scores.get(TUNED) or scores[BASE]
    name = scores["metrics"][0]
    interval = "[{:.2f}, {:.2f}] ".format(*main[f"{name}_ci"]) if f"{name}_ci" in main else ""
    parts = [f"{name.replace('_', ' ')} {main[name]:.2f} {interval}of {main['n']}"]
    if TUNED in scores and BASE in scores:
        parts += [f"base {scores[BASE][name]:.2f}", f"{main[name] - scores[BASE][name]:+.2f}"]
    if main["num_errors"]:
        parts.append(f"{main['num_errors']} refused by the engine, counted as wrong")
    if not gate["passed"]:
        parts.append("gate refused")
    return " · ".join(parts)
