"""A run's folder as the stages leave it, with answers that try to break out of the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.pipeline.manifest import ORIGINS, Manifest, StageRecord
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json, write_state
from stages.data.prediction import Prediction
from stages.evaluate.scores import judge
from stages.evaluate.stage import score
from stages.infer.predictions import write_parts
from stages.sections.evaluate import Evaluate
from stages.sections.recipe import Recipe

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
REFERENCES = [f"inform(name[Game {index}], genres[puzzle])" for index in range(30)] + [
    f"confirm(name[Game {index}])" for index in range(10)
]


def answers() -> tuple[list[str], list[str]]:
    """Tuned: right but for every fourth, the first of which is hostile. Base: always wrong."""
    wrong = [text.replace("[Game", "[Came") for text in REFERENCES]
    tuned = [wrong[index] if index % 4 == 0 else text for index, text in enumerate(REFERENCES)]
    tuned[0] = EVIL
    return tuned, [f"It is {EVIL}"] * len(REFERENCES)


@pytest.fixture
def predictions(tmp_path: Path) -> Artifact:
    folder, (tuned, base) = tmp_path / "predictions", answers()
    lines = []
    for index, reference in enumerate(REFERENCES):
        for variant, texts in (("tuned", tuned), ("base", base)):
            output = {"generated_text": texts[index], "num_input_tokens": 3, "num_generated_tokens": 4}
            source = {"id": f"test-{index:06d}", "instruction": "Say it.", "input": f"Question {index}? {EVIL}"}
            lines.append(Prediction.made(source, variant, reference, output, None).line())
    write_parts(folder, lines)
    meta = {"variants": ["tuned", "base"], "num_rows": len(REFERENCES)}
    return scan_folder("predictions", folder, meta)


@pytest.fixture
def run_folder(tmp_path: Path, quickstart: Recipe, predictions: Artifact) -> Path:
    """A finished run of all stages up to query."""
    folder = tmp_path / "runs" / "viggo_quickstart" / "20260101-120000-abcdef"
    keys = Evaluate(metrics=["exact_match", "attribute_f1"], slices=["function", "length"])
    scores = tmp_path / "scores"
    scores.mkdir()
    quiet: Any = SimpleNamespace(update=lambda *args, **figures: None)
    found = score(predictions, scores, keys, adapter_sha256="a" * 64, progress=quiet).as_dict()
    require = {"exact_match": ">=0.5", "delta_vs_base": ">=0.9"}
    evaluate = quickstart.evaluate.model_copy(update={**keys.model_dump(), "require": require})
    log = tmp_path / "training_log"
    log.mkdir()
    steps = [{"current_steps": n, "loss": 3 / n, "lr": 1e-3 / n, "eval_loss": 2 / n} for n in range(1, 61)]
    (log / "trainer_log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    adapter = Artifact(name="adapter", uri="s3://bucket/adapter", sha256="a" * 64)
    query = {"first_token_s": 0.2, "tokens_per_s": 16.0, "model": "base:a", "text": "x", "matches_batch": True}
    records = [
        record("train", [scan_folder("training_log", log)], {"num_steps": 60, "samples_per_s": 2.5}, 160.0),
        record("publish", [adapter], {}, 1.0),
        record("infer", [predictions], {}, 60.0, seen={"adapter": "a" * 64}),
        record("evaluate", [scan_folder("scores", scores)], {**found, "gate": judge(require, found).as_dict()}, 0.1,
               seen={"adapter": "a" * 64, "predictions": predictions.sha256}),
        record("query", [], {**query, "base": {**query, "model": "base"}}, 5.0),
    ]  # fmt: skip
    manifest = Manifest(
        run_id=folder.name, recipe="viggo_quickstart", status="gate_refused", created_at=1.77e9, stages=records
    )
    manifest.save(folder)
    recipe = quickstart.model_copy(update={"evaluate": evaluate})
    write_state(folder / "recipe.json", recipe.model_dump(mode="json"))
    write_state(folder / "identity.json", {"command": "python -m runner recipe=viggo_quickstart"})
    write_state(folder / ORIGINS, {"train": "recipes/train/lora.yaml"})
    write_json(folder / "unrelated.json", {})
    return folder


def record(
    name: str, artifacts: list[Artifact], metrics: dict[str, Any], wall_s: float, seen: dict[str, str] | None = None
) -> StageRecord:
    return StageRecord(
        name=name, status="done", artifacts=artifacts, metrics=metrics, wall_s=wall_s, note=f"{name} <b>is</b> done",
        inputs={"inputs": seen or {}, "libraries": {"ray": "2.59.0", "vllm": None}},
    )  # fmt: skip
