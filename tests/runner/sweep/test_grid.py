"""Sweeps: every job runs, the best is marked, failures stay with their job, and what was interrupted is continued."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli.main import main
from runner.errors import (
    EXIT_DONE,
    EXIT_GATE_REFUSED,
    EXIT_INTERRUPTED,
    EXIT_INVALID_RECIPE,
    EXIT_LOCKED,
    EXIT_STAGE_FAILED,
    RecipeError,
)
from runner.pipeline.stage import StageResult
from runner.sweep.capacity import Share
from runner.sweep.grid import combinations
from runner.sweep.jobs import Planned
from runner.sweep.page import write_sweep_report
from runner.sweep.state import Job, Sweep, open_sweep
from tests.paths import ROOT

RANKS = "train.lora_rank=4,8,16"


@pytest.fixture
def scores(fake_stages: Any, monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Exact match by rank; a rank without one fails in training. Negative: the gate refuses."""
    found = {4: 0.5, 8: 0.9, 16: 0.7}
    original = fake_stages.run

    def run(self: Any, ctx: Any) -> StageResult:
        rank = ctx.recipe.train.lora_rank
        if self.name == "train" and rank not in found:
            raise ValueError(f"no luck with {rank}")
        result: StageResult = original(self, ctx)
        if self.name != "evaluate":
            return result
        value = found[rank]
        tuned = {"n": 10, "num_errors": 0, "exact_match": abs(value), "exact_match_ci": [abs(value) - 0.1, 1.0]}
        gate = {"passed": value > 0, "missed": ["exact_match is low"]}
        return replace(result, metrics={"tuned": tuned, "base": {**tuned, "exact_match": 0.1}, "gate": gate})

    monkeypatch.setattr(fake_stages, "run", run)
    return found


def sweep_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    return folder


def begin(local: list[str], *overrides: str) -> int:
    return main(["-m", "recipe=viggo_quickstart", *local, *overrides])


def test_the_best_job_is_marked_in_table_state_and_report(
    scores: Any, local: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert begin(local, RANKS) == EXIT_DONE
    sweep = Sweep.load(sweep_folder(tmp_path))
    assert sweep.status == "done"
    assert sweep.changes() == [{"train.lora_rank": rank} for rank in ("4", "8", "16")]
    assert [job.value for job in sweep.jobs] == [0.5, 0.9, 0.7]
    best = sweep.best()
    assert best is not None
    assert best.number == 1
    row = next(line for line in capfd.readouterr().out.splitlines() if line.rstrip().endswith("best"))
    assert row.split() == ["1", "8", "0.900", "[0.80,", "1.00]", "best"]
    html = (sweep_folder(tmp_path) / "report.html").read_text()
    assert f'href="../../viggo_quickstart/{best.run_id}/report.html"' in html
    assert html.count('class="best"') == 1
    assert "| 8 | 0.900 |" in (sweep_folder(tmp_path) / "report.md").read_text()


def test_a_failed_job_does_not_stop_the_others_and_is_what_the_same_command_runs(
    scores: dict[int, float], fake_stages: Any, local: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    del scores[4]
    assert begin(local, "train.lora_rank=4,8") == EXIT_STAGE_FAILED
    sweep = Sweep.load(sweep_folder(tmp_path))
    assert [(job.status, job.value) for job in sweep.jobs] == [("failed", None), ("done", 0.9)]
    assert sweep.jobs[0].error == "ValueError: no luck with 4"
    assert "failed ValueError: no luck with 4" in capfd.readouterr().out
    fake_stages.runs.clear()
    scores[4] = 0.6
    assert begin(local, "train.lora_rank=4,8") == EXIT_DONE
    assert fake_stages.runs.count("train") == 1
    assert "ingest" not in fake_stages.runs
    sweep = Sweep.load(sweep_folder(tmp_path))
    assert [job.value for job in sweep.jobs] == [0.6, 0.9]
    assert sweep.status == "done"


def test_an_interrupted_sweep_is_continued(
    scores: Any, fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = fake_stages.run

    def interrupted(self: Any, ctx: Any) -> StageResult:
        if self.name == "infer" and ctx.recipe.train.lora_rank == 8:
            raise KeyboardInterrupt
        result: StageResult = run(self, ctx)
        return result

    monkeypatch.setattr(fake_stages, "run", interrupted)
    assert begin(local, "train.lora_rank=4,8") == EXIT_INTERRUPTED
    state = Sweep.load(sweep_folder(tmp_path))
    assert ([job.status for job in state.jobs], state.status) == (["done", "interrupted"], "interrupted")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "continue with" in line]
    assert "train.lora_rank=4,8" in line, "the sweep's command and not its job's"
    monkeypatch.setattr(fake_stages, "run", run)
    fake_stages.runs.clear()
    assert begin(local, "train.lora_rank=4,8") == EXIT_DONE
    assert fake_stages.runs[0] == "infer"  # the first job is done, and the second resumes where it stopped
    assert [job.value for job in Sweep.load(sweep_folder(tmp_path)).jobs] == [0.5, 0.9]


class Child:
    """A job's process that has run in this one."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code


def test_jobs_side_by_side_have_the_same_outcome_and_continue_those_one_after_another(
    scores: dict[int, float], fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    started = []

    def start(planned: Planned, share: Share) -> Child:
        started.append((planned.job.number, share))
        return Child(main(list(planned.arguments)))

    monkeypatch.setattr("runner.sweep.grid.start_process", lambda folder: start)
    monkeypatch.setattr("runner.sweep.jobs._POLL_S", 0)
    del scores[16]
    quick = [RANKS, "serve.port=0"]
    assert begin(local, *quick, "max_parallel_jobs=2") == EXIT_STAGE_FAILED
    assert "3 jobs, 2 at a time" in capfd.readouterr().out
    assert [number for number, _ in started] == [0, 1, 2]
    assert fake_stages.runs.count("ingest") == 1
    sweep = Sweep.load(sweep_folder(tmp_path))
    assert [(job.status, job.value) for job in sweep.jobs] == [("done", 0.5), ("done", 0.9), ("failed", None)]
    assert sweep.jobs[2].error == "ValueError: no luck with 16"
    scores[16] = 0.7
    assert begin(local, *quick, "max_parallel_jobs=1") == EXIT_DONE
    assert [job.value for job in Sweep.load(sweep_folder(tmp_path)).jobs] == [0.5, 0.9, 0.7]


def test_a_process_that_ends_without_a_summary_is_a_failed_job(
    scores: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.sweep.grid.start_process", lambda folder: lambda planned, share: Child(-9))
    assert begin(local, "train.lora_rank=4,8", "serve.port=0", "max_parallel_jobs=2") == EXIT_STAGE_FAILED
    errors = {job.error for job in Sweep.load(sweep_folder(tmp_path)).jobs}
    assert any(error.startswith("ended with -9; see ") for error in errors)


def test_only_an_unfinished_sweep_of_the_same_command_is_continued(tmp_path: Path) -> None:
    first, folder = open_sweep(tmp_path, ["a=1,2"], "command")
    assert open_sweep(tmp_path, ["a=1,3"], "command")[1] != folder
    assert open_sweep(tmp_path, ["a=1,2"], "command")[1] == folder
    first.status = "done"
    first.save(folder)
    assert open_sweep(tmp_path, ["a=1,2"], "command")[1] != folder


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["done", "gate_refused"], EXIT_DONE),
        (["gate_refused", "gate_refused"], EXIT_GATE_REFUSED),
        (["gate_refused", "failed", "done"], EXIT_STAGE_FAILED),
    ],
)
def test_the_exit_code_is_of_all_jobs(statuses: list[Any], code: int) -> None:
    jobs = [Job(number=number, overrides=[], status=status) for number, status in enumerate(statuses)]
    assert Sweep(sweep_id="s", identity="i", command="c", jobs=jobs).exit_code() == code


def test_a_job_that_the_gate_refused_is_best_only_when_none_passed() -> None:
    jobs = [
        Job(number=0, overrides=["a=1"], status="gate_refused", value=0.9),
        Job(number=1, overrides=["a=2"], status="done", value=0.5),
    ]
    sweep = Sweep(sweep_id="s", identity="i", command="c", jobs=jobs)
    assert sweep.best() is jobs[1]
    assert sweep.model_copy(update={"jobs": jobs[:1]}).best() is jobs[0]


@pytest.mark.parametrize(("low", "kind", "shown"), [(0.2, "plain", True), (0.6, "good", False)])
def test_a_best_job_no_better_than_its_base_is_not_good(tmp_path: Path, low: float, kind: str, shown: bool) -> None:
    sweep, folder = open_sweep(tmp_path, ["a=1,2"], "python -m runner -m a=1,2")
    job = sweep.job(["a=1"])
    job.status, job.value, job.interval, job.base = "done", 0.7, (low, 0.9), 0.5
    sweep.save(folder)
    html = write_sweep_report(folder)[0].read_text()
    assert f'class="verdict {kind}"' in html
    assert ("no job is better than it beyond chance" in html) is shown


def test_pages_of_jobs_are_linked_below_a_root_that_was_moved(tmp_path: Path) -> None:
    sweep, folder = open_sweep(tmp_path / "before", ["a=1,2"], "python -m runner -m a=1,2")
    job = sweep.job(["a=1"])
    job.run_id, job.folder = "20260101-120000-abcdef", str(tmp_path / "before" / "mine" / "20260101-120000-abcdef")
    Path(job.folder).mkdir(parents=True)
    (Path(job.folder) / "report.html").touch()
    sweep.save(folder)
    (tmp_path / "before").rename(tmp_path / "after")
    html = write_sweep_report(tmp_path / "after" / "sweeps" / folder.name)[0].read_text()
    assert 'href="../../mine/20260101-120000-abcdef/report.html"' in html


def test_a_sweep_without_scores_has_a_report(tmp_path: Path) -> None:
    sweep, folder = open_sweep(tmp_path, ["a=1,2"], "python -m runner -m a=1,2")
    sweep.job(["a=<script>"]).status = "failed"
    sweep.save(folder)
    html = write_sweep_report(folder)[0].read_text()
    assert "Nothing was scored" in html
    assert "<script>" not in html.partition("<body>")[2].rpartition("<script>")[0]


@pytest.mark.e2e
def test_optuna_is_told_the_scores_and_proposes_by_them(
    scores: dict[int, float], local: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    del scores[16]
    code = r"""
import json, sys, warnings
warnings.simplefilter("ignore")
from runner.pipeline import registry
from tests.conftest import FakeStage
registry.BUILTIN = json.loads(sys.argv[1])
original = FakeStage.run
def run(self, ctx):
    from dataclasses import replace
    result, train = original(self, ctx), ctx.recipe.train
    if self.name == "train" and train.lora_rank == 16:
        raise ValueError("no luck")
    tuned = {"n": 10, "num_errors": 0, "exact_match": train.lora_rank / 64}
    return replace(result, metrics={"tuned": tuned}) if self.name == "evaluate" else result
FakeStage.run = run
from runner.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
    import subprocess

    from runner.pipeline import registry

    arguments = ["-m", "recipe=viggo_quickstart", "sweep=optuna", "hydra.sweeper.n_trials=3", *local]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(registry.BUILTIN), *arguments],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    sweep = Sweep.load(folder := sweep_folder(tmp_path))
    assert len(sweep.jobs) == 3, done.stderr
    assert done.returncode == sweep.exit_code()
    assert {job.value for job in sweep.jobs if job.finished} <= {4 / 64, 8 / 64, 32 / 64}
    known = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert known["best_value"] == max(job.value for job in sweep.jobs if job.value is not None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("range(8,4)", "has no value"),
        ("range(4,8,0)", "is not a range"),
        ("glob(*)", "is not for a sweep here"),
        ("4,4", "has the value 4 twice"),
        ("1e-3,0.001", "has the value 0.001 twice"),
    ],
)
def test_a_sweep_without_values_or_with_one_twice_is_refused(value: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        combinations([f"train.learning_rate={value}"])
    assert words in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "sweep=optuna"], "says how a sweep goes, which -m starts"),
        (["-m", "validate", "sweep=nope"], "there is no sweep 'nope'; there are: optuna"),
        (["validate", "only=[]"], "names no stage"),
        (["validate", "only=[train]", "stop_after=train"], "Give one or the other."),
        (["validate", "start_at=train", "stop_after=ingest"], "so that no stage would run"),
    ],
)
def test_options_that_would_run_nothing_or_something_else_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "recipe=viggo_quickstart"]) == EXIT_INVALID_RECIPE
    assert message in capsys.readouterr().err


def test_the_same_sweep_is_refused_while_it_runs(
    scores: dict[int, float], fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original, codes = fake_stages.run, list[int]()

    def run(self: Any, ctx: Any) -> StageResult:
        if not codes:
            codes.append(begin(local, "train.lora_rank=4,8"))
        result: StageResult = original(self, ctx)
        return result

    monkeypatch.setattr(fake_stages, "run", run)
    assert begin(local, "train.lora_rank=4,8") == EXIT_DONE
    assert codes == [EXIT_LOCKED]
    assert "the same sweep is already running" in capfd.readouterr().err
