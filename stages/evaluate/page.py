"""The scores' part of the report: gate, metrics, classes with their confusion matrix, slices, right and wrong rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.results import FinishedRun, Part
from runner.recipe.comparison import parse_comparison
from runner.text import count_text
from stages.data.prediction import BASE, TUNED
from stages.evaluate.cases import MAX_ROWS, Cases
from stages.evaluate.outcome import main_metric
from stages.evaluate.pictures import Pictures
from stages.evaluate.scores import measured
from stages.evaluate.slices import LENGTH

_TEMPLATES = Path(__file__).parent / "templates"


def page(run: FinishedRun) -> Part:
    scores = {key: value for key, value in run.metrics("evaluate").items() if key != "gate"}
    main = TUNED if TUNED in scores else BASE
    cases = _cases(run)
    facts = {
        "gate": _gate(run.section("evaluate"), scores),
        "scores": _scores(scores, main) if main in scores else None,
        "slices": _slices(scores, main),
        "classes": cases.classes() if cases else None,
        "cases": _rows(cases),
    }
    return Part(
        order=10,
        templates=_TEMPLATES,
        facts=facts,
        sections=[section for section in _SECTIONS if _has(facts, section[0])],
        settings=_settings(run),
        figures=_figures(scores, main),
    )


_SECTIONS = (("scores", "Scores"), ("classes", "Classes"), ("slices", "Slices"), ("rows", "Rows"))


def _has(facts: Mapping[str, Any], section: str) -> bool:
    return bool(facts["cases"]["rows"] if section == "rows" else facts[section])


def _settings(run: FinishedRun) -> list[tuple[str, str]]:
    metrics = run.section("evaluate").get("metrics") or []
    return [("metrics", ", ".join(metrics))] if metrics else []


def _figures(scores: Mapping[str, Any], main: str) -> dict[str, float]:
    own = scores.get(main) or {}
    return {name: own[name] for name in scores.get("metrics") or [main_metric(scores)] if name in own}


def _cases(run: FinishedRun) -> Cases | None:
    predictions = run.on_this_machine("predictions")
    if predictions is None or not run.metrics("evaluate"):
        return None
    with suppress(OSError, RunnerError):
        return Cases(predictions, run.recipe, run.on_this_machine("test_set"))
    return None


def _rows(cases: Cases | None) -> dict[str, Any]:
    if cases is None:
        return {"rows": []}
    rows = cases.rows()
    names = list(dict.fromkeys(name for row in rows for name, _ in row["slices"]))
    filters = [
        {"name": name, "values": sorted({value for row in rows for key, value in row["slices"] if key == name})}
        for name in names
    ]
    return {
        "rows": rows,
        "total": cases.num_wrong + cases.num_right,
        "num_wrong": cases.num_wrong,
        "num_right": cases.num_right,
        "pictures": _about(cases.pictures),
        "templates": cases.templates(),
        "read": MAX_ROWS if cases.truncated else None,
        "filters": [each for each in filters if len(each["values"]) > 1],
    }


def _about(pictures: Pictures) -> str:
    """What is missing of the rows' images."""
    if pictures.damage:
        return f"Images are not shown: {pictures.damage}."
    omitted = count_text(pictures.omitted, "image is", "images are")
    return f"{omitted} not shown: the page would be too large." if pictures.omitted else ""


def _gate(keys: Mapping[str, Any], scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each requirement: `{name, required, value, holds}`; value None was not measured."""
    found = []
    for name, text in (keys.get("require") or {}).items() if scores else ():
        comparison, value = parse_comparison(text), measured(name, scores)
        holds = comparison is not None and value is not None and comparison.holds(value)
        found.append({"name": name, "required": text, "value": value, "holds": holds})
    return found


def _scores(scores: Mapping[str, Any], main: str) -> dict[str, Any]:
    """The table of metrics: `{n, num_errors, text, variant, confidence, has_base, other_run, rows}`."""
    own, base = scores[main], scores.get(BASE) if main == TUNED else None
    delta = scores.get("delta_vs_base") or {}
    names = scores.get("metrics") or [name for name in own if isinstance(own[name], float)]
    rows = [
        {
            "name": name,
            "value": own[name],
            "interval": own.get(f"{name}_ci"),
            "base": base.get(name) if base else None,
            "base_interval": base.get(f"{name}_ci") if base else None,
            "delta": delta.get(name),
            "delta_interval": delta.get(f"{name}_ci"),
            "p": delta.get(f"{name}_p"),
        }
        for name in names
    ]
    return {
        "n": own["n"],
        "num_errors": own["num_errors"],
        "text": _counts(own, delta, scores.get("denominator", "")),
        "variant": main,
        "confidence": scores.get("confidence", 0.95),
        "has_base": base is not None,
        "other_run": scores.get("delta_vs_run"),
        "rows": rows,
    }


def _counts(own: Mapping[str, Any], delta: Mapping[str, Any], denominator: str) -> str:
    """Right, wrong and refused rows in words, what they are a share of, and what changed against the base model."""
    text = f"{count_text(own['n'], 'row')}, {own['num_errors']} refused by the engine"
    if "num_wrong" in own:
        right = own["n"] - own["num_wrong"] - own["num_errors"]
        text = f"Of {count_text(own['n'], 'row')} {count_text(right, 'is', 'are')} exactly right, "
        text += f"{own['num_wrong']} wrong and {own['num_errors']} refused"
    text += f"; the denominator is {denominator}." if denominator else "."
    if "gained" in delta:
        gained = count_text(delta["gained"], "row is", "rows are")
        text += f" {gained} right that the base model got wrong, {delta['lost']} the other way round."
    return text


def _slices(scores: Mapping[str, Any], main: str) -> list[dict[str, Any]]:
    """For each slice `{name, metric, rows: [{value, n, score, interval, base, worse}]}`, the largest first."""
    metric = main_metric(scores)
    found = []
    for name, parts in (scores.get("slices") or {}).items():
        rows = [_slice_row(value, variants, main, metric) for value, variants in parts.items()]
        ordered = rows if name == LENGTH else sorted(rows, key=lambda row: -row["n"])
        found.append({"name": name, "metric": metric, "rows": ordered})
    return found


def _slice_row(value: str, variants: Mapping[str, Any], main: str, metric: str) -> dict[str, Any]:
    score = variants[main][metric]
    base = variants[BASE][metric] if main == TUNED and BASE in variants else None
    return {
        "value": value,
        "n": variants[main]["n"],
        "score": score,
        "interval": variants[main].get(f"{metric}_ci"),
        "base": base,
        "worse": base is not None and score < base,
    }
