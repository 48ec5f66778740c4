"""The report's first sentences: what became of the run, whether it is better, and what to be careful about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from runner.pipeline.check import trusted_values
from runner.pipeline.manifest import Manifest
from runner.recipe.schema import Recipe
from stages.data.prediction import BASE, TUNED

_SIGNIFICANT = 0.05
_FEW_ROWS = 50


def verdict(manifest: Manifest, scores: Mapping[str, Any]) -> dict[str, str]:
    """`{kind, title, text}`; kind is good, bad or plain."""
    failed = next((record for record in manifest.stages if record.status == "failed"), None)
    text = comparison(scores) if scores else _last_note(manifest)
    if manifest.status == "gate_refused":
        gates = [record.metrics["gate"] for record in manifest.stages if "gate" in record.metrics]
        missed = "; ".join(gates[0]["missed"]) if gates else ""
        return {"kind": "bad", "title": "The gate said no", "text": f"{missed}. {text}"}
    if manifest.status == "failed" and failed:
        return {"kind": "bad", "title": f"{failed.name} failed", "text": failed.error or ""}
    if manifest.status != "done":
        return {"kind": "bad", "title": manifest.status.replace("_", " ").capitalize(), "text": text}
    better = better_than_base(scores)
    title = {True: "Better than the base model", False: "Worse than the base model", None: "Done"}[better]
    return {"kind": {True: "good", False: "bad", None: "plain"}[better], "title": title, "text": text}


def _last_note(manifest: Manifest) -> str:
    """What a run without scores has come to: the last stage that says something."""
    notes = [f"{record.name}: {record.note}" for record in manifest.stages if record.note and record.status == "done"]
    return notes[-1] if notes else "Nothing was scored."


def better_than_base(scores: Mapping[str, Any]) -> bool | None:
    """Whether the first metric's difference to the base model is beyond chance (p < 0.05), and which way."""
    name, delta = _first(scores), scores.get("delta_vs_base") or {}
    p_value = delta.get(f"{name}_p", delta.get("p_value"))
    if p_value is None or delta.get(name) is None or p_value >= _SIGNIFICANT:
        return None
    return bool(delta[name] > 0)


def comparison(scores: Mapping[str, Any]) -> str:
    """One sentence of the first metric: its value, interval and rows, and the base model's beside it."""
    main = scores.get(TUNED) or scores.get(BASE)
    if not main:
        return "Nothing was scored."
    name = _first(scores)
    if name not in main:
        return ""
    text = f"{name.replace('_', ' ').capitalize()} is {main[name]:.3f} on {main['n']} rows"
    if f"{name}_ci" in main:
        low, high = main[f"{name}_ci"]
        text += f" ({scores.get('confidence', 0.95):.0%} interval {low:.3f} to {high:.3f})"
    if TUNED in scores and BASE in scores:
        text += f"; the base model has {scores[BASE][name]:.3f}"
        if better_than_base(scores) is None:
            text += ", a difference that these rows cannot tell from chance"
    return text + "."


def _first(scores: Mapping[str, Any]) -> str:
    names = scores.get("metrics") or ["exact_match"]
    return str(names[0])


def _trusted(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What ran only because the command line trusted it; nothing of a recipe that an earlier version wrote."""
    with suppress(ValidationError):
        return trusted_values(Recipe.model_validate(dict(recipe)))
    return {}


def warnings(manifest: Manifest, recipe: Mapping[str, Any], scores: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the scores should know before believing them."""
    records = {record.name: record for record in manifest.stages}
    if (recipe.get("model") or {}).get("trust_remote_code"):
        yield "model.trust_remote_code is on: code of the model's repository has run."
    for key, value in _trusted(recipe).items():
        yield f"{key} = {value} was trusted by the command line (--trust): it may name code, files or hosts."
    skipped = sum((records["ingest"].metrics.get("skipped") or {}).values()) if "ingest" in records else 0
    if skipped:
        yield f"{skipped} rows of the dataset were unusable and left out (dataset.on_bad_row=skip)."
    main = scores.get(TUNED) or scores.get(BASE)
    if main:
        if main["num_errors"]:
            yield f"The engine refused {main['num_errors']} of {main['n']} rows; they count as wrong."
        if main["n"] < _FEW_ROWS:
            yield f"Only {main['n']} rows were scored; the intervals are wide."
        if TUNED in scores and BASE not in scores:
            yield "The base model was not scored (evaluate.compare_base=false): nothing says what training gained."
        if TUNED in scores and not scores.get("adapter_sha256"):
            yield "The scores name no adapter digest: they cannot be tied to what is served."
    if "query" in records and records["query"].metrics.get("matches_batch") is False:
        yield "The endpoint answered a test row otherwise than batch inference did."
    taken = [record.name for record in manifest.stages if record.origin_run and record.origin_run != manifest.run_id]
    if taken:
        yield f"Taken over from earlier runs: {', '.join(taken)}."
