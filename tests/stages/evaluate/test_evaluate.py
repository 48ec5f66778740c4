"""Scores, their gate and their remarks, from predictions on disk."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.storage.artifact import Artifact, scan_folder
from stages.data.prediction import Prediction
from stages.evaluate.scores import Scores, judge, measured
from stages.evaluate.stage import Evaluate, note, score
from stages.infer.predictions import write_parts
from stages.sections.evaluate import Evaluate as Keys
from stages.sections.recipe import Recipe

QUIET = SimpleNamespace(update=lambda *args, **figures: None)
RIGHT, SPACED, WRONG = "f(a[x])", "f(a[x]) ", "f(a[y])"


def predictions(folder: Path, **answers: list[str | None]) -> Artifact:
    """variant=[answer to each row]; every reference is RIGHT, and None is a row that the engine refused."""
    num_rows = len(next(iter(answers.values())))
    lines = []
    for index in range(num_rows):
        for variant, texts in answers.items():
            output = {"generated_text": texts[index], "num_input_tokens": 3, "num_generated_tokens": 4}
            error = "too long" if texts[index] is None else None
            source = {"id": f"test-{index:06d}", "input": "?"}
            lines.append(Prediction.made(source, variant, RIGHT, output, error).line())
    write_parts(folder, lines)
    return scan_folder("predictions", folder, {"variants": list(answers), "num_rows": num_rows})


def scored(
    tmp_path: Path, artifact: Artifact, metrics: list[str] | None = None, other: Artifact | None = None, **more: Any
) -> dict[str, Any]:
    keys = Keys(metrics=metrics or ["exact_match", "exact_match_normalized"], **more)
    return scores_of(tmp_path, artifact, keys, other).as_dict()


def scores_of(tmp_path: Path, artifact: Artifact, keys: Keys, other: Artifact | None = None) -> Scores:
    return score(artifact, tmp_path, keys, other=other, adapter_sha256="d" * 64, progress=QUIET)  # type: ignore[arg-type]


@pytest.fixture
def both(tmp_path: Path) -> Artifact:
    return predictions(
        tmp_path / "predictions", tuned=[RIGHT, RIGHT, SPACED, WRONG, None], base=[WRONG, WRONG, WRONG, RIGHT, WRONG]
    )


def test_each_variant_is_scored_with_refused_rows_counted_as_wrong(tmp_path: Path, both: Artifact) -> None:
    scores = scored(tmp_path, both)
    assert scores["tuned"]["n"] == scores["base"]["n"] == 5
    assert scores["tuned"]["num_errors"] == 1
    assert scores["tuned"]["num_wrong"] == 2
    assert scores["denominator"].startswith("all test rows")
    assert scores["tuned"]["exact_match"] == pytest.approx(2 / 5)
    assert scores["tuned"]["exact_match_normalized"] == pytest.approx(3 / 5)
    assert scores["tuned"]["exact_match_ci"] == pytest.approx([0.1176, 0.7693], abs=1e-4)
    assert scores["base"]["exact_match"] == pytest.approx(1 / 5)
    assert scores["adapter_sha256"] == "d" * 64
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


def test_difference_to_base_is_paired_by_row(tmp_path: Path, both: Artifact) -> None:
    delta = scored(tmp_path, both)["delta_vs_base"]
    low, high = delta["exact_match_ci"]
    assert delta["exact_match"] == pytest.approx(1 / 5)
    assert low < 0.2 < high
    assert {name: delta[name] for name in ("n", "gained", "lost", "p_value", "exact_match_p")} == {
        "n": 5, "gained": 2, "lost": 1, "p_value": 1.0, "exact_match_p": 1.0
    }  # fmt: skip
    assert delta["exact_match_normalized"] == pytest.approx(2 / 5)


def test_difference_needs_no_order_of_the_rows(tmp_path: Path, both: Artifact) -> None:
    part = both.path / "part-00000.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(sorted(lines, key=lambda line: json.loads(line)["variant"])))
    assert scored(tmp_path, both)["delta_vs_base"]["gained"] == 2


def test_every_row_that_the_adapter_missed_is_kept(tmp_path: Path, both: Artifact) -> None:
    scored(tmp_path, both)
    rows = [json.loads(line) for line in (tmp_path / "mismatches.jsonl").read_text().splitlines()]
    assert [(row["id"], row["variant"]) for row in rows] == [(f"test-{index:06d}", "tuned") for index in (2, 3, 4)]


def test_base_alone_is_scored_without_a_difference(tmp_path: Path) -> None:
    scores = scored(tmp_path, predictions(tmp_path / "predictions", base=[RIGHT, WRONG]))
    assert scores["base"]["exact_match"] == 0.5
    assert "delta_vs_base" not in scores
    assert "tuned" not in scores
    assert len((tmp_path / "mismatches.jsonl").read_text().splitlines()) == 1


def test_a_ratio_is_of_sums_over_the_rows(tmp_path: Path) -> None:
    artifact = predictions(tmp_path / "predictions", tuned=["f(a[x], b[1], c[2])", RIGHT, None])
    scores = scored(tmp_path, artifact, ["attribute_precision", "attribute_recall", "attribute_f1"])["tuned"]
    assert scores["attribute_precision"] == pytest.approx(2 / 4)
    assert scores["attribute_recall"] == pytest.approx(2 / 3)
    assert scores["attribute_f1"] == pytest.approx(4 / 7)
    assert scores["attribute_f1_ci"][0] < scores["attribute_f1"] < scores["attribute_f1_ci"][1]


def test_graded_metrics_get_the_paired_bootstrap(tmp_path: Path) -> None:
    tuned, base = [RIGHT] * 30, ["f(a[x], b[1])"] * 30
    artifact = predictions(tmp_path / "predictions", tuned=tuned, base=base)
    delta = scored(tmp_path, artifact, ["attribute_f1"])["delta_vs_base"]
    assert delta["attribute_f1"] == pytest.approx(1 / 3)
    assert delta["attribute_f1_ci"] == pytest.approx([1 / 3, 1 / 3])
    assert delta["attribute_f1_p"] < 0.01


def test_slices_are_scored_by_themselves(tmp_path: Path, both: Artifact) -> None:
    slices = scored(tmp_path, both, slices=["function", "length", "input"])["slices"]
    assert slices["function"]["f"]["tuned"]["exact_match"] == pytest.approx(2 / 5)
    assert slices["length"] == {"7 characters": slices["function"]["f"]}
    assert slices["input"]["?"]["base"]["n"] == 5


def test_a_slice_by_a_column_that_no_row_has_is_refused(tmp_path: Path, both: Artifact) -> None:
    with pytest.raises(RunnerError, match="'category' is not a column of the rows") as refusal:
        scored(tmp_path, both, slices=["category"])
    assert "input" in refusal.value.message
    assert refusal.value.hint == "Name one of these, or function or length."


def test_another_run_is_compared_row_by_row(tmp_path: Path, both: Artifact) -> None:
    other = predictions(tmp_path / "other", tuned=[WRONG, RIGHT, RIGHT, RIGHT])
    scores = scored(tmp_path, both, other=other, compare_run="earlier")
    delta = scores["delta_vs_run"]
    assert (delta["run"], delta["n"], delta["gained"], delta["lost"]) == ("earlier", 4, 1, 2)
    assert delta["exact_match"] == pytest.approx(-1 / 4)
    assert measured("delta_vs_run", scores) == pytest.approx(-1 / 4)
    assert scores["tuned"]["n"] == 5


def test_rows_of_another_run_count_only_with_the_same_reference(tmp_path: Path, both: Artifact) -> None:
    other = predictions(tmp_path / "other", tuned=[RIGHT])
    part = other.path / "part-00000.jsonl"
    part.write_text(part.read_text().replace(f'"reference": "{RIGHT}"', '"reference": "g()"'))
    assert scored(tmp_path, both, other=other, compare_run="earlier")["delta_vs_run"] == {"run": "earlier"}


def test_gate_passes_when_everything_holds(tmp_path: Path, both: Artifact) -> None:
    require = {
        "exact_match": ">=0.4",
        "base.exact_match": "<0.3",
        "delta_vs_base": " > 0.1 ",
        "exact_match_normalized": "<=1",
    }
    assert judge(require, scored(tmp_path, both)).as_dict() == {"passed": True, "missed": []}


def test_gate_says_what_missed_by_how_much(tmp_path: Path, both: Artifact) -> None:
    verdict = judge({"exact_match": ">=0.60", "delta_vs_base": ">=0.4"}, scored(tmp_path, both)).as_dict()
    assert verdict == {
        "passed": False,
        "missed": [
            "exact_match is 0.4; >= 0.6 is required (off by 0.2)",
            "delta_vs_base is 0.2; >= 0.4 is required (off by 0.2)",
        ],
    }


def test_gate_fails_for_what_was_not_measured(tmp_path: Path) -> None:
    scores = scored(tmp_path, predictions(tmp_path / "predictions", tuned=[RIGHT]))
    for name in ("delta_vs_base", "delta_vs_base.exact_match", "delta_vs_run", "base.exact_match", "parse_rate"):
        assert measured(name, scores) is None
        assert judge({name: ">=0"}, scores).missed == (f"{name} was not measured; >= 0 is required",)


@pytest.mark.parametrize("text", ["0.6", ">= high", ">=", "=>0.6", ">=0.6 or so", ">=1.2.3"])
def test_requirement_that_is_not_a_comparison_is_refused(text: str) -> None:
    with pytest.raises(RunnerError, match="is not a comparison"):
        judge({"exact_match": text}, {"tuned": {"exact_match": 1.0}})


def test_note_has_score_interval_base_and_difference(tmp_path: Path, both: Artifact) -> None:
    scores = scores_of(tmp_path, both, Keys(metrics=["exact_match"]))
    assert note(scores) == (
        "exact match 0.40 [0.12, 0.77] of 5 · base 0.20 · +0.20 · 1 refused by the engine, counted as wrong"
    )
    refused = scores_of(tmp_path, both, Keys(metrics=["exact_match"], require={"exact_match": ">=0.9"}))
    assert note(refused).endswith(" · gate refused")


def test_scores_are_read_back_with_the_verdict(tmp_path: Path, both: Artifact) -> None:
    folder = tmp_path / "scores"
    folder.mkdir()
    made = scores_of(folder, both, Keys(require={"exact_match": ">=0.9"}, slices=["function"]))
    assert Scores.read(scan_folder("scores", folder)) == made
    assert not made.verdict.passed


def test_scores_of_an_earlier_version_ask_for_another_evaluation(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"tuned": {}, "adapter_sha256": None}))
    with pytest.raises(RunnerError, match="another version of the runner") as refusal:
        Scores.read(scan_folder("scores", tmp_path))
    assert "force=[evaluate]" in refusal.value.hint


def test_stage_keeps_the_scores_when_the_gate_fails(tmp_path: Path, quickstart: Recipe, both: Artifact) -> None:
    evaluate = quickstart.evaluate.model_copy(update={"require": {"exact_match": ">=0.9"}})
    adapter = Artifact(name="adapter", uri="s3://bucket/key", sha256="a" * 64)
    stage_dir = tmp_path / "evaluate"
    stage_dir.mkdir()
    ray = SimpleNamespace(call=lambda function, resources, *args, **kwargs: function(*args, **kwargs))
    ray.progress = lambda stage: QUIET
    ctx = RunContext(
        recipe=quickstart.model_copy(update={"evaluate": evaluate}), stage="evaluate", run_id="r", run_dir=tmp_path,
        stage_dir=stage_dir, fingerprint="f", inputs={"predictions": both, "adapter": adapter}, ray=ray,  # type: ignore[arg-type]
    )  # fmt: skip
    result = Evaluate().run(ctx)
    assert result.metrics["gate"]["passed"] is False
    assert result.metrics["adapter_sha256"] == "a" * 64
    assert [artifact.name for artifact in result.artifacts] == ["scores"]
    assert {entry.path for entry in result.artifacts[0].files} == {"scores.json", "mismatches.jsonl"}


def test_adapter_is_needed_only_when_the_pipeline_publishes_one(quickstart: Recipe) -> None:
    assert Evaluate().needs(quickstart) == ("predictions", "adapter")
    assert Evaluate().needs(quickstart.model_copy(update={"pipeline": ["ingest", "infer"]})) == ("predictions",)
