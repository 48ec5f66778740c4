"""report.html and report.md: what they say, and that nothing in them is alive but their own."""

from __future__ import annotations

import json
import re
import shutil
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from runner.pipeline.engine.progress import ProgressFile
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.results import Chart, Series
from runner.pipeline.run_locks import one_run
from runner.report.pages import write_report
from runner.report.pages.charts import draw, running_mean, thinned
from runner.report.pages.facts import run_facts
from runner.storage.artifact import scan_folder
from runner.storage.atomic import read_state, write_state
from stages.data.prediction import Prediction
from stages.evaluate.difference import difference
from stages.infer.predictions import write_parts
from tests.runner.report.pages.conftest import EVIL, record


class Page(HTMLParser):
    """Every start tag with its attributes, and the text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.text += f"{data} "


@pytest.fixture
def html(run_folder: Path) -> str:
    write_report(run_folder)
    return (run_folder / "report.html").read_text()


def test_the_page_says_what_became_of_the_run(html: str) -> None:
    text = " ".join(Page(html).text.split())
    assert "The quality gate refused the result" in text
    assert "delta_vs_base is 0.75; >= 0.9 is required (off by 0.15)" in text
    assert "exact match >=0.5 0.750 ✓ holds" in text
    assert "delta vs base >=0.9 0.750 ✗ missed" in text
    assert "Of 40 rows 30 are exactly right, 10 wrong and 0 refused" in text
    assert "30 rows are right that the base model got wrong, 0 the other way round." in text
    assert "first token, adapter 0.2 s" in text
    assert "train.lora_rank 8 recipes/train/lora.yaml" in text
    assert "ray 2.59.0" in text


def test_what_a_model_wrote_stays_text(html: str) -> None:
    page = Page(html)
    assert EVIL not in html
    assert EVIL in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not {"img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_needs_no_network(html: str) -> None:
    page = Page(html)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(link and link.startswith(("#", "data:,")) for link in links)
    assert not re.search(r"@import|url\((?!#)", html)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def part(folder: Path, stage: str) -> dict[str, Any]:
    """The facts of that stage's part of the page."""
    return dict(next(each.part.facts for each in run_facts(folder)["parts"] if each.stage == stage))


def test_rows_are_shown_with_request_reference_answer_and_base(run_folder: Path) -> None:
    cases = part(run_folder, "evaluate")["cases"]
    assert (cases["num_wrong"], cases["num_right"], len(cases["rows"])) == (10, 30, 40)
    row = cases["rows"][1]
    assert row["turns"] == [("user", f"Question 4? {EVIL}")]  # the column of the prompt, not the instruction
    assert row["expected"] == [(False, "inform(name["), (True, "Game"), (False, " 4], genres[puzzle])")]
    assert row["found"] == [(False, "inform(name["), (True, "Came"), (False, " 4], genres[puzzle])")]
    assert row["base"] == f"It is {EVIL}"
    assert dict(row["slices"])["function"] == "inform"
    assert dict(row["metrics"]) == {"exact_match": 0.0, "attribute_f1": 0.5}
    assert [each["right"] for each in cases["rows"]] == [False] * 10 + [True] * 30


def test_labels_that_are_a_slice_too_have_one_filter(run_folder: Path, tmp_path: Path) -> None:
    lines = []
    for index in range(40):
        label = ("billing", "shipping")[index % 2]
        row = {"id": f"test-{index:06d}", "instruction": "", "input": f"Ticket {index}", "label": label}
        output = {"generated_text": label, "num_input_tokens": 3, "num_generated_tokens": 1}
        lines.append(Prediction.made(row, "tuned", label, output, None).line())
    write_parts(tmp_path / "labels", lines)
    labels = scan_folder("predictions", tmp_path / "labels", {"variants": ["tuned"], "num_rows": 40})
    manifest = Manifest.load(run_folder)
    infer = next(each for each in manifest.stages if each.name == "infer")
    infer.artifacts[:] = [labels]
    manifest.save(run_folder)
    recipe = read_state(run_folder / "recipe.json")
    recipe["evaluate"]["slices"] = ["label"]
    write_state(run_folder / "recipe.json", recipe)
    page = Page(write_report(run_folder)[0].read_text())
    filters = [attributes.get("data-key") for tag, attributes in page.tags if tag == "select"]
    assert filters == ["verdict", "label", None]
    assert page.text.count("every label") == 1


def test_slices_and_base_stand_next_to_the_scores(run_folder: Path) -> None:
    facts = part(run_folder, "evaluate")
    assert [(row["value"], row["n"]) for row in facts["slices"][0]["rows"]] == [("inform", 30), ("confirm", 10)]
    first = facts["scores"]["rows"][0]
    assert (first["value"], first["base"], first["delta"]) == (0.75, 0.0, 0.75)
    assert first["p"] < 0.001


def test_digests_are_followed_from_data_to_endpoint(run_folder: Path) -> None:
    chain = {step["name"]: step["holds"] for step in run_facts(run_folder)["chain"]}
    assert chain == {"training_log": None, "adapter": None, "predictions": True, "scores": True}
    manifest = Manifest.load(run_folder)
    manifest.stages[3].inputs["inputs"]["adapter"] = "b" * 64
    manifest.save(run_folder)
    assert {step["name"]: step["holds"] for step in run_facts(run_folder)["chain"]}["scores"] is False


def test_the_endpoints_models_stand_side_by_side(run_folder: Path) -> None:
    answers = part(run_folder, "query")["answers"]
    assert [(each["model"], each["matches_batch"]) for each in answers] == [("base", True), ("base:a", True)]


def test_warnings_are_shown(run_folder: Path) -> None:
    assert run_facts(run_folder)["remarks"] == ["Only 40 rows were scored; the intervals are wide."]


def test_markdown_has_the_verdict_and_a_table(html: str, run_folder: Path) -> None:
    text = (run_folder / "report.md").read_text()
    assert text.startswith("## viggo\\_quickstart: The quality gate refused the result\n")
    assert "| exact\\_match | **0.750** |" in text
    assert "- ❌ delta\\_vs\\_base &gt;=0.9: 0.750" in text
    assert "<script>" not in text
    assert "<b>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|---")]
    assert len(tables) == 4


def test_a_run_without_scores_has_a_page_too(tmp_path: Path) -> None:
    folder = tmp_path / "any" / "run"
    Manifest(run_id="run", recipe="any", status="interrupted").save(folder)
    write_report(folder)
    page = Page((folder / "report.html").read_text())
    assert "Interrupted" in page.text


def test_a_run_without_scores_says_what_it_came_to(tmp_path: Path) -> None:
    folder = tmp_path / "any" / "run"
    served = StageRecord(name="serve", status="done", note="http://127.0.0.1:8000/v1 serves base and base:a")
    Manifest(run_id="run", recipe="any", status="done", stages=[served]).save(folder)
    write_report(folder)
    assert "serve: http://127.0.0.1:8000/v1 serves base and base:a" in Page((folder / "report.html").read_text()).text


def test_artifacts_that_are_gone_are_left_out(run_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "predictions")
    (tmp_path / "training_log" / "trainer_log.jsonl").write_text("corrupt {")
    assert part(run_folder, "evaluate")["cases"]["rows"] == []
    training = next(each.part for each in run_facts(run_folder)["parts"] if each.stage == "train")
    assert training.charts == {}
    write_report(run_folder)


def test_a_training_on_pairs_shows_its_method_and_how_many_of_them_it_tells_apart(
    run_folder: Path, tmp_path: Path
) -> None:
    steps = [{"current_steps": n, "loss": 0.7 / n, "lr": 1e-3, "accuracy": n / 4} for n in (1, 2, 3)]
    (tmp_path / "training_log" / "trainer_log.jsonl").write_text("\n".join(map(json.dumps, steps)))
    write_state(run_folder / "recipe.json", {**read_state(run_folder / "recipe.json"), "train": {"stage": "dpo"}})
    write_report(run_folder)
    text = " ".join(Page((run_folder / "report.html").read_text()).text.split())
    assert "method dpo, lora" in text
    assert "whose chosen answer the model prefers" in text
    assert "pairs with the chosen answer preferred 75%" in text


def test_curves_are_drawings_in_the_pages_colours() -> None:
    points = [(step, 4.0 / step) for step in range(1, 2000)]
    loss = Chart("step", [Series("training", points, "smooth"), Series("evaluation", points[::100], "points")])
    drawings = [draw(loss, "loss"), draw(Chart("step", [Series("rate", points)]), "rate")]
    ids = [re.findall(r'\bid="([^"]+)"', drawing) for drawing in drawings]
    assert not set(ids[0]) & set(ids[1])
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        assert "var(--accent)" in drawing
        assert "#0102" not in drawing
        assert len(drawing) < 80_000
    assert draw(loss, "loss") == drawings[0]


def test_thinning_keeps_the_last_point() -> None:
    points = [(float(step), 0.0) for step in range(5000)]
    assert len(thinned(points)) <= 601
    assert thinned(points)[-1] == points[-1]
    assert thinned(points[:10]) == points[:10]


def test_running_mean_of_a_constant_is_the_constant() -> None:
    assert running_mean([2.0] * 100) == pytest.approx([2.0] * 100)
    assert running_mean([]) == []


@pytest.mark.parametrize(
    ("expected", "found", "left", "right"),
    [
        ("a b", "a b", [(False, "a b")], [(False, "a b")]),
        ("f(x)", "f(y)", [(False, "f("), (True, "x"), (False, ")")], [(False, "f("), (True, "y"), (False, ")")]),
        ("", "a", [], [(True, "a")]),
        ("x " * 700, "y", [(True, "x " * 700)], [(True, "y")]),
    ],
    ids=["same", "one word", "empty", "very long"],
)
def test_differences_are_told_by_token(
    expected: str, found: str, left: list[tuple[bool, str]], right: list[tuple[bool, str]]
) -> None:
    assert difference(expected, found) == (left, right)


def test_an_interrupted_run_shows_the_logs_end_without_its_colours(run_folder: Path) -> None:
    manifest = Manifest.load(run_folder)
    stopped = {"status": "interrupted", "note": "", "error": None, "artifacts": []}
    manifest.stages, manifest.status = [manifest.stages[0].model_copy(update=stopped)], "interrupted"
    manifest.save(run_folder)
    (run_folder / "logs").mkdir()
    (run_folder / "logs" / "train.log").write_text("\x1b[36m(Worker pid=1)\x1b[0m step 7 [0]\n")
    html = write_report(run_folder)[0].read_text()
    assert "<pre>(Worker pid=1) step 7 [0]</pre>" in html
    assert ">interrupted</td>" in html


def test_a_run_that_is_at_work_is_not_shown_as_a_failure(run_folder: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(run_folder)
    manifest.status, manifest.stages = "running", manifest.stages[:2]
    manifest.save(run_folder)
    write_state(run_folder / "identity.json", {"command": "python -m runner run", "recipe_sha256": "e" * 64})
    with one_run(tmp_path / "runs", "e" * 64, "python -m runner run"):
        facts = run_facts(run_folder)
    assert (facts["verdict"].kind, facts["verdict"].title, facts["failure"]) == ("plain", "Running", None)


def facts_after_one_stage(run_folder: Path, status: str, begun: str) -> dict[str, Any]:
    """The facts of a run that has finished one stage. begun: the stage that it began last."""
    manifest = Manifest.load(run_folder)
    manifest.status, manifest.stages = status, manifest.stages[:1]  # type: ignore[assignment]
    manifest.save(run_folder)
    ProgressFile(run_folder, ["train", "publish"], lambda: "").begin(begun)
    return run_facts(run_folder)


def test_a_run_that_was_killed_says_where_and_how_to_continue(run_folder: Path) -> None:
    facts = facts_after_one_stage(run_folder, "running", "publish")
    assert (facts["verdict"].kind, facts["verdict"].title) == ("bad", "Killed during publish")
    assert facts["failure"]["command"] == "python -m runner recipe=viggo_quickstart"
    assert facts["failure"]["log"] == str(run_folder / "logs" / "publish.log")


def test_a_run_that_was_interrupted_between_two_stages_says_after_which(run_folder: Path) -> None:
    facts = facts_after_one_stage(run_folder, "interrupted", "train")
    assert facts["verdict"].title == "Interrupted after train"
    assert (facts["failure"]["stage"], facts["failure"]["end"]) == ("", "")
    assert facts["failure"]["command"] == "python -m runner recipe=viggo_quickstart"


def test_one_row_that_was_left_out_is_one_row(run_folder: Path) -> None:
    manifest = Manifest.load(run_folder)
    manifest.stages.insert(0, record("ingest", [], {"rows": {"train": 9}, "skipped": {"train": 1}}, 1.0))
    manifest.save(run_folder)
    assert "ingest left out 1 row that could not be used." in run_facts(run_folder)["remarks"]
