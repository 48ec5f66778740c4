"""A whole run of the quickstart's recipe with a tiny model and rows of conversations of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_rows(folder: Path, rows: Sequence[Any], times: int, test: Sequence[Any] | None = None) -> None:
    """Training rows, each as many times, and test rows; these are the training rows where none are given."""
    for name, split in (("train", [*rows] * times), ("test", rows if test is None else test)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, split)))


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """The summary of a whole run over the folder's rows with its model: without the base model's answers."""
    command = [
        sys.executable, "-m", "runner", "run", "recipe=viggo_quickstart", f"storage.root={folder}/runs",
        f"storage.artifacts={folder}/artifacts", f"model.source={folder}/model", "model.architecture=null",
        f"dataset.source={folder}", "dataset.files.val=null", "dataset.prompt.user=null",
        "dataset.prompt.assistant=null", "dataset.prompt.conversations=messages", "serve.port=0",
        "evaluate.require={}", "evaluate.compare_base=false", "evaluate.slices=[]", "evaluate.metrics=[exact_match]",
        "query.num_rows=2", "train.lora_rank=32", "train.learning_rate=1e-2", *overrides,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout
    summary: dict[str, Any] = json.loads(((folder / "runs" / "latest").resolve() / "summary.json").read_text())
    return summary
