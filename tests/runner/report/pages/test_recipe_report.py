"""The page over all runs of a recipe: history, curves over each other, scores over time, links."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.pipeline.manifest import Manifest
from runner.report.pages import write_recipe_report, write_report
from runner.report.pages.recipe_facts import recipe_facts
from runner.storage.artifact import scan_folder
from runner.storage.atomic import read_state, write_state


@pytest.fixture
def root(run_folder: Path, tmp_path: Path) -> Path:
    """Two runs: the second with another learning rate, another curve and a better score."""
    write_report(run_folder)
    other = run_folder.with_name("20260102-120000-abcdef")
    shutil.copytree(run_folder, other)
    log = tmp_path / "training_log_2"
    log.mkdir()
    steps = [{"current_steps": n, "loss": 5 / n} for n in range(1, 61)]
    (log / "trainer_log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    manifest = Manifest.load(other)
    manifest.run_id, manifest.status = other.name, "done"
    manifest.stages[0].artifacts = [scan_folder("training_log", log)]
    manifest.stages[3].metrics["tuned"]["exact_match"] = 0.85
    manifest.save(other)
    recipe = read_state(other / "recipe.json")
    recipe["train"]["learning_rate"] = 0.0005
    write_state(other / "recipe.json", {key: value for key, value in recipe.items() if key != "self_sha256"})
    (other / "report.html").unlink()
    return run_folder.parent.parent


def test_the_newest_run_is_first_with_what_differs(root: Path) -> None:
    facts = recipe_facts(root, "viggo_quickstart")
    assert [run["id"] for run in facts["runs"]] == ["20260102-120000-abcdef", "20260101-120000-abcdef"]
    assert facts["keys"] == ["train.learning_rate"]
    assert next(run["changed"]["train.learning_rate"] for run in facts["runs"]) == 0.0005
    assert [run["figures"]["exact_match"] for run in facts["runs"]] == [0.85, 0.75]
    assert [run["link"] for run in facts["runs"]] == ["", "20260101-120000-abcdef/report.html"]


def test_scores_over_time_are_drawn_from_the_oldest_and_curves_over_each_other(root: Path) -> None:
    charts = recipe_facts(root, "viggo_quickstart")["charts"]
    assert charts["history-exact_match"].series[0].points == [(1.0, 0.75), (2.0, 0.85)]
    assert [series.label for series in charts["curve-loss"].series] == [
        "20260102-120000-abcdef", "20260101-120000-abcdef"
    ]  # fmt: skip


def test_the_page_links_the_runs_and_needs_no_network(root: Path) -> None:
    html = write_recipe_report(root, "viggo_quickstart")[0].read_text()
    assert 'href="20260101-120000-abcdef/report.html"' in html
    assert html.count("<svg") >= 2
    assert "train.learning_rate=0.0005" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_a_damaged_run_is_named_and_the_others_are_shown(root: Path) -> None:
    for name in ("manifest.json", ".manifest.copy.json"):
        (root / "viggo_quickstart" / "20260102-120000-abcdef" / name).write_text("corrupt {")
    facts = recipe_facts(root, "viggo_quickstart")
    assert len(facts["runs"]) == 1
    assert facts["damaged"][0].startswith("20260102-120000-abcdef: ")
    write_recipe_report(root, "viggo_quickstart")


def test_a_recipe_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="there is no run of nothing below"):
        write_recipe_report(tmp_path, "nothing")
