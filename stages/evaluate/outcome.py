"""Whether the run is better, in a sentence, and what to know before believing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.pipeline.results import FinishedRun, Outcome, Verdict
from runner.text import count_text
from stages.data.prediction import BASE, TUNED

_SIGNIFICANT = 0.05
_FEW_ROWS = 50
_FEWEST_IN_SLICE = 5


def outcome(run: FinishedRun) -> Outcome:
    """The verdict on the scores, with the gate's when it refused them."""
    metrics = run.metrics("evaluate")
    scores = {key: value for key, value in metrics.items() if key != "gate"}
    if not (scores.get(TUNED) or scores.get(BASE)):
        return Outcome()
    gate = metrics.get("gate") or {}
    remarks = list(remarks_on(scores, run))
    if gate.get("passed") is False:
        text = f"{'; '.join(gate['missed'])}. {comparison(scores)}"
        return Outcome(Verdict("bad", "The quality gate refused the result", text), (), remarks)
    better = better_than_base(scores)
    title = {True: "Better than the base model", False: "Worse than the base model", None: "Done"}[better]
    kinds: Any = {True: "good", False: "bad", None: "plain"}
    return Outcome(Verdict(kinds[better], title, comparison(scores)), (), remarks)


def main_metric(scores: Mapping[str, Any]) -> str:
    """The first metric of the recipe, which the verdict is about."""
    names = scores.get("metrics") or ["exact_match"]
    return str(names[0])


def better_than_base(scores: Mapping[str, Any]) -> bool | None:
    """Whether the first metric's difference to the base model is beyond chance (p-value < 0.05), and which way."""
    name, delta = main_metric(scores), scores.get("delta_vs_base") or {}
    p_value = delta.get(f"{name}_p", delta.get("p_value"))
    if p_value is None or delta.get(name) is None or p_value >= _SIGNIFICANT:
        return None
    return bool(delta[name] > 0)


def comparison(scores: Mapping[str, Any]) -> str:
    """One sentence of the first metric: its value, interval and rows, and the base model's."""
    main = scores.get(TUNED) or scores.get(BASE)
    if not main:
        return "Nothing was scored."
    name = main_metric(scores)
    if name not in main:
        return ""
    text = f"{name.replace('_', ' ').capitalize()} is {main[name]:.3f} on {count_text(main['n'], 'row')}"
    if f"{name}_ci" in main:
        low, high = main[f"{name}_ci"]
        text += f" ({scores.get('confidence', 0.95):.0%} interval {low:.3f} to {high:.3f})"
    if TUNED in scores and BASE in scores and name in scores[BASE]:
        text += f"; the base model has {scores[BASE][name]:.3f}"
        if better_than_base(scores) is None:
            text += ", a difference that these rows cannot tell from chance"
    return text + "."


def remarks_on(scores: Mapping[str, Any], run: FinishedRun) -> Iterator[str]:
    """What a reader of the scores should know before believing them."""
    main = scores.get(TUNED) or scores[BASE]
    if main.get("num_errors"):
        counts = "it counts" if main["num_errors"] == 1 else "they count"
        yield f"The engine refused {main['num_errors']} of {count_text(main['n'], 'row')}; {counts} as wrong."
    if main["n"] < _FEW_ROWS:
        yield f"Only {count_text(main['n'], 'row was', 'rows were')} scored; the intervals are wide."
    if TUNED in scores and BASE not in scores:
        yield "The base model was not scored (evaluate.compare_base=false): nothing says what training gained."
    if TUNED in scores and run.manifest.artifact("adapter") and not scores.get("adapter_sha256"):
        yield "The scores name no adapter digest: they cannot be tied to what is served."
    yield from worse_slices(scores)


def worse_slices(scores: Mapping[str, Any]) -> Iterator[str]:
    """Each value of a slice whose rows got worse although the whole got better."""
    name = main_metric(scores)
    if not (TUNED in scores and BASE in scores and scores[TUNED].get(name, 0) > scores[BASE].get(name, 0)):
        return
    for slice_name, parts in (scores.get("slices") or {}).items():
        for value, variants in parts.items():
            own, base = variants.get(TUNED), variants.get(BASE)
            if own and base and own["n"] >= _FEWEST_IN_SLICE and own[name] < base[name]:
                yield (
                    f"{name.replace('_', ' ').capitalize()} got worse where {slice_name} is {value!r} "
                    f"({base[name]:.3f} before, {own[name]:.3f} now, {own['n']} rows) although the whole got better."
                )
