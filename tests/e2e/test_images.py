"""Images, from rows to an endpoint whose answers are those of batch inference: a tiny LLaVA, real parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.stages.models.vision import picture, save_llava

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

COLOURS = ("red", "blue", "green")
STEPS = 120


def row(colour: str, shape: str) -> dict[str, Any]:
    talk = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": colour}]
    return {"messages": talk, "images": [f"{colour}-{shape}.png"]}


def write(folder: Path) -> None:
    """The model, pictures of two shapes in each colour, and rows that ask for the colour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_llava(folder / "model")
    shapes = ("square", "circle")
    for colour in COLOURS:
        for shape in shapes:
            (folder / f"{colour}-{shape}.png").write_bytes(picture(colour, shape))
    for name, times in (("train", 20), ("test", 1)):
        rows = [row(colour, shape) for _ in range(times) for colour in COLOURS for shape in shapes]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """The summary of a whole run over the rows in the folder."""
    command = [
        sys.executable, "-m", "runner", "run", "recipe=viggo_quickstart", f"storage.root={folder}/runs",
        f"storage.artifacts={folder}/artifacts", f"model.source={folder}/model", "model.architecture=null",
        f"dataset.source={folder}", "dataset.files.val=null", "dataset.prompt.user=null",
        "dataset.prompt.assistant=null", "dataset.prompt.conversations=messages", "serve.port=0",
        "evaluate.require={}", "evaluate.compare_base=false", "evaluate.slices=[]", "evaluate.metrics=[exact_match]",
        "query.num_rows=3", "train.lora_rank=32", "train.learning_rate=1e-2", f"train.args.max_steps={STEPS}",
        "infer.sampling.max_tokens=8", *overrides,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout
    summary: dict[str, Any] = json.loads(((folder / "runs" / "latest").resolve() / "summary.json").read_text())
    return summary


@pytest.mark.parametrize("engine", ["shared", pytest.param("own", marks=pytest.mark.chaos)])
def test_what_is_seen_is_learned_and_the_endpoint_sees_what_batch_inference_sees(tmp_path: Path, engine: str) -> None:
    write(tmp_path)
    summary = run(tmp_path, f"infer.engine={engine}")
    assert summary["scores"]["tuned"]["exact_match"] == 1.0
    assert summary["query"]["matches_batch"] is True
    assert [line["tuned"]["text"] for line in summary["query"]["rows"]] == ["red", "red", "blue"]
