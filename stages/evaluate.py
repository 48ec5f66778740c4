"""Score the predictions, beside the base model's where there are any, and judge the gate."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster import ProgressHandle
from runner.context import RunContext
from runner.errors import RunnerError
from runner.manifest import Artifact, scan_folder, write_json
from runner.schema import Recipe
from stages.base import StageResult
from stages.metrics import Metric, exact_match, known_metrics, load_metrics, mcnemar_exact, wilson_interval
from stages.predictions import BASE, TUNED, prediction_rows

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}
_REQUIREMENT = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_ROWS_PER_UPDATE = 1_000


class Evaluate:
    """Makes `scores`: scores.json, and mismatches.jsonl with every row whose answer is not exactly the reference."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("evaluate.metrics", "evaluate.confidence", "evaluate.require")
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ("scores",)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The predictions and, when the pipeline publishes one, the adapter, whose digest goes into the scores."""
        return ("predictions", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def run(self, ctx: RunContext) -> StageResult:
        """The gate's verdict is `metrics["gate"]`: the scores are kept whatever it is, and the engine acts on it.

        Raises RunnerError for an unknown metric, and for a requirement that is no comparison.
        """
        keys = ctx.recipe.evaluate
        known_metrics(keys.metrics)
        folder = ctx.stage_dir / "scores"
        folder.mkdir(exist_ok=True)
        adapter = ctx.inputs.get("adapter")
        scores = ctx.ray.call(
            score,
            ctx.resources,
            ctx.input("predictions"),
            folder,
            keys.metrics,
            keys.confidence,
            adapter_sha256=adapter.sha256 if adapter else None,
            progress=ctx.progress(),
        )
        gate = judge(keys.require, scores)
        return StageResult([scan_folder("scores", folder)], {**scores, "gate": gate}, note(scores, gate))


@dataclass
class Tally:
    """Sums over the rows of one variant."""

    num_rows: int = 0
    num_errors: int = 0
    hits: dict[str, float] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)
    ratios: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any], functions: Mapping[str, Metric]) -> None:
        """Count a prediction. One that the engine refused is wrong."""
        self.num_rows += 1
        self.num_errors += row["error"] is not None
        for name, function in functions.items():
            value = function(row["prediction"], row["reference"])
            if isinstance(value, tuple):
                hits, chances = value
                self.ratios.add(name)
            else:
                hits, chances = 0.0 if row["error"] else value, 1.0
            self.hits[name] = self.hits.get(name, 0.0) + hits
            self.chances[name] = self.chances.get(name, 0.0) + chances

    def summary(self, functions: Mapping[str, Metric], confidence: float) -> dict[str, Any]:
        """`{n, num_errors, <metric>, <metric>_ci}`; the interval only where a row is one chance, as Wilson's is."""
        summary: dict[str, Any] = {"n": self.num_rows, "num_errors": self.num_errors}
        for name in functions:
            hits, chances = self.hits[name], self.chances[name]
            summary[name] = hits / chances if chances else 0.0
            if name not in self.ratios:
                summary[f"{name}_ci"] = list(wilson_interval(hits, self.num_rows, confidence))
        return summary


@dataclass
class Pairs:
    """Which rows one variant got exactly right and the other did not.

    Both answers to a row lie side by side in the files as a rule, so that few rows ever wait for their other half.
    """

    num_rows: int = 0
    gained: int = 0
    lost: int = 0
    waiting: dict[str, bool] = field(default_factory=dict)

    def add(self, row_id: str, variant: str, right: bool) -> None:
        """Count the row once both variants' answers are known."""
        if row_id not in self.waiting:
            self.waiting[row_id] = right
            return
        other = self.waiting.pop(row_id)
        tuned, base = (right, other) if variant == TUNED else (other, right)
        self.num_rows += 1
        self.gained += tuned and not base
        self.lost += base and not tuned

    def summary(self) -> dict[str, Any]:
        """Difference of exact match (tuned - base), with the exact McNemar test of the rows where they differ."""
        return {
            "exact_match": (self.gained - self.lost) / self.num_rows,
            "n": self.num_rows,
            "gained": self.gained,
            "lost": self.lost,
            "p_value": mcnemar_exact(self.gained, self.lost),
        }


def score(
    predictions: Artifact,
    folder: Path,
    metrics: list[str],
    confidence: float,
    *,
    adapter_sha256: str | None,
    progress: ProgressHandle,
) -> dict[str, Any]:
    """Score every variant in one pass over the files and write scores.json and mismatches.jsonl into the folder.

    `n` counts all test rows, those that the engine refused included; they count as wrong. The mismatches are the
    adapter's, or the base model's when there is no adapter. Returns what scores.json holds.
    """
    functions = load_metrics(metrics)
    variants = predictions.meta["variants"]
    tallies = {variant: Tally() for variant in variants}
    pairs = Pairs()
    main = TUNED if TUNED in variants else BASE
    total = predictions.meta["num_rows"] * len(variants)
    with (folder / "mismatches.jsonl").open("w", encoding="utf-8") as mismatches:
        for count, row in enumerate(prediction_rows(predictions), start=1):
            variant = row["variant"]
            tallies[variant].add(row, functions)
            right = not row["error"] and exact_match(row["prediction"], row["reference"]) == 1.0
            if len(variants) > 1:
                pairs.add(row["id"], variant, right)
            if variant == main and not right:
                mismatches.write(json.dumps(row, ensure_ascii=False) + "\n")
            if count % _ROWS_PER_UPDATE == 0 or count == total:
                progress.update(count, total, "row")
    scores: dict[str, Any] = {variant: tally.summary(functions, confidence) for variant, tally in tallies.items()}
    if pairs.num_rows:
        scores["delta_vs_base"] = pairs.summary()
    scores["adapter_sha256"] = adapter_sha256
    write_json(folder / "scores.json", scores)
    return scores


def judge(require: Mapping[str, str], scores: Mapping[str, Any]) -> dict[str, Any]:
    """`{passed, missed}`: what of `evaluate.require` does not hold. What was not measured does not hold.

    Raises RunnerError for a requirement that is no comparison.
    """
    missed = []
    for name, text in require.items():
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise RunnerError(
                f"evaluate.require.{name}={text!r} is not a comparison", 'Write one such as ">=0.6" (>=, >, <=, <, ==).'
            )
        limit, value = float(match[2]), measured(name, scores)
        if value is None:
            missed.append(f"{name} was not measured; {match[1]} {limit:g} is required")
        elif not _COMPARE[match[1]](value, limit):
            missed.append(f"{name} is {value:.4g}; {match[1]} {limit:g} is required (off by {abs(value - limit):.4g})")
    return {"passed": not missed, "missed": missed}


def measured(name: str, scores: Mapping[str, Any]) -> float | None:
    """The figure that a requirement names, or None when there is none.

    A metric's name means the adapter's (the base model's when there is no adapter), `base.<metric>` the base model's,
    and `delta_vs_base` the difference of exact match.
    """
    if name == "delta_vs_base":
        found = scores.get("delta_vs_base", {}).get("exact_match")
    elif name.startswith(f"{BASE}."):
        found = scores.get(BASE, {}).get(name.removeprefix(f"{BASE}."))
    else:
        found = (scores.get(TUNED) or scores.get(BASE) or {}).get(name)
    return None if found is None else float(found)


def note(scores: Mapping[str, Any], gate: Mapping[str, Any]) -> str:
    """One line such as `exact match 0.72 [0.62, 0.80] of 100 · base 0.00 · +0.72`, and the gate's no."""
    main = scores.get(TUNED) or scores[BASE]
    name = next(key for key in main if key not in ("n", "num_errors"))
    interval = "[{:.2f}, {:.2f}] ".format(*main[f"{name}_ci"]) if f"{name}_ci" in main else ""
    parts = [f"{name.replace('_', ' ')} {main[name]:.2f} {interval}of {main['n']}"]
    if TUNED in scores and BASE in scores:
        parts += [f"base {scores[BASE][name]:.2f}", f"{main[name] - scores[BASE][name]:+.2f}"]
    if main["num_errors"]:
        parts.append(f"{main['num_errors']} refused by the engine, counted as wrong")
    if not gate["passed"]:
        parts.append("gate refused")
    return " · ".join(parts)
