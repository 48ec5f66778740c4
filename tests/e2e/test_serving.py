"""Two runs' adapters of different ranks behind one endpoint; the second run needs no prediction of the base model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import RUN_TIMEOUT_S, Done, run_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_adapters_of_two_runs_answer_side_by_side_as_in_batch(quickstart_run: Done, workspace: Path) -> None:
    second = run_recipe("train.lora_rank=4", "train.max_samples=64", "stop_after=evaluate", root=workspace)
    assert second.code == 0, second.shown
    assert second.status("ingest") == "skipped"
    infer = next(stage for stage in second.summary["stages"] if stage["name"] == "infer")
    assert infer["metrics"]["num_predictions"] == 200
    assert "100 predictions of the base model are known from an earlier run" in second.shown

    runs = [quickstart_run.summary["run_id"], second.summary["run_id"]]
    options = ["serve.keep_alive=false", "serve.port=0", "query.num_rows=2", f"storage.root={workspace}"]
    served = subprocess.run(
        [sys.executable, "-m", "runner", "action=serve", f"runs=[{','.join(runs)}]", *options],
        cwd=workspace.parent, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=RUN_TIMEOUT_S,
    )  # fmt: skip
    assert served.returncode == 0, served.stdout
    query = json.loads((workspace / "latest" / "summary.json").read_text())["query"]
    assert query["matches_batch"] is True
    assert query["others"][runs[1]]["matches_batch"] is True
    assert query["others"][runs[1]]["model"] != query["model"]
    assert "Answers of the endpoint" in (workspace / "latest" / "report.html").read_text()
