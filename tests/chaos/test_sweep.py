"""A sweep of four jobs, two at a time, that is killed and continued; then its adapters behind one endpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.pipeline.manifest import MANIFEST, Manifest
from runner.sweep.state import Sweep
from tests.chaos.harness import Running, complete, send, start
from tests.chaos.harness import command as recipe_command
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1500)]
NUM_ROWS = 12


def state(root: Path) -> Sweep | None:
    try:
        return Sweep.load(next((root / "sweeps").iterdir()))
    except (OSError, StopIteration, RunnerError):
        return None


def manifests(root: Path) -> list[Manifest]:
    return [Manifest.load(path.parent) for path in root.glob(f"chaos/*/{MANIFEST}")]


def sweep_command(root: Path, model: Path) -> list[str]:
    line = recipe_command(
        root, model, root / "artifacts", "pipeline=[ingest,train,publish,infer,evaluate,serve,query]",
        f'dataset.source="generated://viggo?train=64&val=4&test={NUM_ROWS}&seed=7"', "train.args.max_steps=16",
        *(f"resources.{stage}.cpus_per_worker=1" for stage in ("train", "infer", "serve")),
        "stop_after=evaluate", "max_parallel_jobs=2", "train.lora_rank=4,8", "train.learning_rate=1e-3,2e-3",
    )  # fmt: skip
    return [*line[:3], "-m", *line[3:]]


def some_job_is_done(running: Running) -> bool:
    sweep = state(running.root)
    return sweep is not None and any(job.finished for job in sweep.jobs)


def test_a_killed_sweep_is_continued_and_its_adapters_answer_as_in_batch(tmp_path: Path) -> None:
    root, model = tmp_path / "runs", tmp_path / "model"
    write_tiny_model(model)
    line = sweep_command(root, model)
    first = start(root, line)
    first.wait_for("the first job's end", lambda: some_job_is_done(first))
    send(first.process, "SIGKILL")
    first.wait()
    assert not first.left_over(), "jobs outlive their sweep"

    second, code = complete(root, line)
    assert code == 0, second.shown()
    assert "4 jobs, 2 at a time" in second.shown()
    assert "was done before" in second.shown()
    sweep = state(root)
    assert sweep is not None
    assert [job.status for job in sweep.jobs] == ["done"] * 4
    runs = manifests(root)
    made = [record for run in runs for record in run.stages if record.status == "done"]
    assert [record.name for record in made].count("ingest") == 1
    adapters = [run.artifact("adapter") for run in runs]
    assert len({adapter.sha256 for adapter in adapters if adapter is not None}) == len(adapters) == 4
    assert len(list((root / "base_predictions").glob("*.jsonl"))) == 1

    served, code = complete(root, serve_command(root, sweep.sweep_id))
    assert code == 0, served.shown()
    query = json.loads((root / "latest" / "summary.json").read_text())["query"]
    assert query["matches_batch"] is True
    assert [other["matches_batch"] for other in query["others"].values()] == [True] * 3
    assert not second.left_over() + served.left_over()


def serve_command(root: Path, sweep_id: str) -> list[str]:
    options = ["serve.keep_alive=false", "serve.port=0", "query.num_rows=3", f"storage.root={root}"]
    return [sys.executable, "-m", "runner", "action=serve", f"sweep={sweep_id}", "top=4", *options]
