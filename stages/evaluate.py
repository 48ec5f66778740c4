"""Score the predictions, beside the base model's where there are any, and judge the gate."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from runner.context import RunContext
from runner.errors import RunnerError
from runner.manifest import Artifact, scan_folder, write_json
from runner.schema import Recipe
from stages.base import StageResult
from stages.infer import prediction_rows
from stages.metrics import known_metrics, load_metrics, mcnemar_exact, wilson_interval

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}
_REQUIREMENT = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+0-9.eE]+)\s*")


class Evaluate:
    """Makes `scores`: scores.json, and mismatches.jsonl with every row that the adapter did not get exactly right."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("evaluate.metrics", "evaluate.confidence", "evaluate.require")
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ("scores",)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("predictions", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def run(self, ctx: RunContext) -> StageResult:
        """The gate's verdict is in `metrics["gate"]`; the engine acts on it. Raises RunnerError for unknown metrics."""
        known_metrics(ctx.recipe.evaluate.metrics)
        folder = ctx.stage_dir / "scores"
        folder.mkdir(exist_ok=True)
        adapter = ctx.inputs.get("adapter")
        scores = ctx.ray.call(
            score, ctx.resources, ctx.input("predictions"), folder, ctx.recipe.evaluate.metrics,
            ctx.recipe.evaluate.confidence, adapter.sha256 if adapter else None,
        )  # fmt: skip
        gate = judge(ctx.recipe.evaluate.require, scores)
        return StageResult([scan_folder("scores", folder)], {**scores, "gate": gate}, note(scores, gate))


def score(
    predictions: Artifact, folder: Path, metrics: list[str], confidence: float, adapter_sha256: str | None
) -> dict[str, Any]:
    """Score every variant in one pass over the files and write scores.json and mismatches.jsonl into the folder.

    A row that the engine refused counts as wrong; `n` is the number of test rows, refused ones included.
    """
    functions = load_metrics(metrics)
    totals: dict[str, dict[str, float]] = {}
    exact: dict[str, dict[str, bool]] = {}
    with (folder / "mismatches.jsonl").open("w", encoding="utf-8") as mismatches:
        for row in prediction_rows(predictions):
            variant = row["variant"]
            total = totals.setdefault(variant, {"n": 0, "num_errors": 0, **dict.fromkeys(functions, 0.0)})
            total["n"] += 1
            total["num_errors"] += row["error"] is not None
            for name, function in functions.items():
                total[name] += 0.0 if row["error"] else float(function(row["prediction"], row["reference"]))
            right = not row["error"] and row["prediction"] == row["reference"]
            exact.setdefault(variant, {})[row["id"]] = right
            if not right and (variant == "tuned" or "tuned" not in totals):
                mismatches.write(json.dumps(row, ensure_ascii=False) + "\n")
    scores: dict[str, Any] = {name: summarize(total, list(functions), confidence) for name, total in totals.items()}
    if {"tuned", "base"} <= set(exact):
        scores["delta_vs_base"] = compare(exact["tuned"], exact["base"])
    scores["adapter_sha256"] = adapter_sha256
    write_json(folder / "scores.json", scores)
    return scores


def summarize(total: Mapping[str, float], metrics: list[str], confidence: float) -> dict[str, Any]:
    """Means of a variant, with a Wilson interval `[low, high]` beside each."""
    count = int(total["n"])
    summary: dict[str, Any] = {"n": count, "num_errors": int(total["num_errors"])}
    for name in metrics:
        summary[name] = total[name] / count
        summary[f"{name}_ci"] = list(wilson_interval(total[name], count, confidence))
    return summary


def compare(tuned: Mapping[str, bool], base: Mapping[str, bool]) -> dict[str, Any]:
    """Difference of exact match over the rows that both predicted, with the exact McNemar test."""
    both = sorted(set(tuned) & set(base))
    gained = sum(tuned[row] and not base[row] for row in both)
    lost = sum(base[row] and not tuned[row] for row in both)
    return {
        "exact_match": (gained - lost) / len(both) if both else 0.0,
        "n": len(both),
        "gained": gained,
        "lost": lost,
        "p_value": mcnemar_exact(gained, lost),
    }


def judge(require: Mapping[str, str], scores: Mapping[str, Any]) -> dict[str, Any]:
    """`{passed, missed}`: what of `evaluate.require` does not hold. What was not measured does not hold."""
    missed = []
    for name, text in require.items():
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise RunnerError(
                f"evaluate.require.{name}={text!r} is not a comparison", 'Write one such as ">=0.6" (>=, >, <=, <, ==).'
            )
        limit, value = float(match[2]), measured(name, scores)
        if value is None:
            missed.append(f"{name} was not measured, asked {text}")
        elif not _COMPARE[match[1]](value, limit):
            missed.append(f"{name} is {value:.3f}, asked {text}: off by {abs(value - limit):.3f}")
    return {"passed": not missed, "missed": missed}


def measured(name: str, scores: Mapping[str, Any]) -> float | None:
    """The figure that `evaluate.require` means: `exact_match` of the adapter, `base.exact_match`, `delta_vs_base`."""
    if name == "delta_vs_base":
        found = scores.get("delta_vs_base", {}).get("exact_match")
    elif name.startswith("base."):
        found = scores.get("base", {}).get(name.removeprefix("base."))
    else:
        found = scores.get("tuned", scores.get("base", {})).get(name)
    return None if found is None else float(found)


def note(scores: Mapping[str, Any], gate: Mapping[str, Any]) -> str:
    """One line: the adapter's exact match with its interval, the base model's, and the gate's verdict."""
    main = scores.get("tuned") or scores.get("base") or {}
    name = "exact_match" if "exact_match" in main else next((key for key in main if key not in ("n", "num_errors")), "")
    parts = []
    if name:
        low, high = main[f"{name}_ci"]
        parts.append(f"{name.replace('_', ' ')} {main[name]:.3f} [{low:.3f}, {high:.3f}] of {main['n']}")
        if "tuned" in scores and "base" in scores:
            parts.append(f"base {scores['base'][name]:.3f}")
    if main.get("num_errors"):
        parts.append(f"{main['num_errors']} errors counted as wrong")
    if not gate["passed"]:
        parts.append("gate refused")
    return ", ".join(parts)
