"""A recipe as a Ray Job: what is sent, what is kept back, and how its log is followed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.cli.main import main
from runner.cluster import jobs
from runner.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_INVALID_RECIPE, RecipeError, RunnerError
from runner.pipeline.registry import stop_seconds
from runner.recipe.load import to_recipe
from runner.recipe.schema import RunOptions
from stages.sections.recipe import Recipe
from tests.runner.recipes import given

ADDRESS = "http://127.0.0.1:8265"
HERE = {"storage.root": "/shared/runs", "cluster.address": ADDRESS}


def recipe_of(changes: dict[str, Any]) -> Recipe:
    return to_recipe(given(HERE | changes))[0]


class Cluster:
    """A cluster of one job. log: pieces that each connection to it gives; an exception breaks the connection."""

    def __init__(self, log: list[list[Any]] | None = None, ends: str = "SUCCEEDED", code: int | None = 0) -> None:
        self.log = log or [["hello\n"]]
        self.ends, self.code = ends, code
        self.settings: dict[str, Any] = {}
        self.files: list[str] = []
        self.stopped: list[str] = []
        self.state = "RUNNING"

    def submit_job(self, **settings: Any) -> str:
        self.settings = settings
        folder = settings["runtime_env"].get("working_dir")
        self.files = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")) if folder else []
        job: str = settings["submission_id"]
        return job

    def get_job_info(self, job_id: str) -> Any:
        if job_id == "unknown":
            raise RuntimeError("Request failed with status code 404: Job unknown does not exist")
        return SimpleNamespace(
            status=self.state, message="", driver_exit_code=self.code, metadata={"recipe": "viggo_quickstart"},
            entrypoint="python -m runner", start_time=1000, end_time=None, runtime_env={"env_vars": {"A": "canary"}},
        )  # fmt: skip

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.log.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        self.state = self.ends

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        self.state = "STOPPED"
        return True


def submit(
    cluster: Cluster, changes: dict[str, Any] | None = None, config_dir: Path | None = None, follow: bool = True
) -> int:
    options = RunOptions(follow=follow)
    overrides = [f"{key}={value}" for key, value in {**HERE, **(changes or {})}.items()]
    overrides = ["recipe=viggo_quickstart", *overrides]
    recipe = recipe_of(changes or {})
    stop_s = stop_seconds(recipe)
    return jobs.submit(recipe, options, overrides, config_dir, lambda address: cluster, stop_s=stop_s)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RECONNECT_S", 0.0)


def test_job_runs_the_same_command_on_the_cluster_that_it_is_in() -> None:
    cluster = Cluster()
    assert (
        submit(cluster, {"train.lora_rank": 4, "submit.num_cpus": 1.5, "submit.resources": {"head": 0.1}}) == EXIT_DONE
    )
    words = cluster.settings["entrypoint"].split()
    assert words[:3] == ["python", "-m", "runner"]
    assert words[3:] == [
        "recipe=viggo_quickstart",
        "storage.root=/shared/runs",
        "train.lora_rank=4",
        "cluster.address=auto",
    ]
    assert cluster.settings["entrypoint_num_cpus"] == 1.5
    assert cluster.settings["entrypoint_resources"] == {"head": 0.1}
    assert cluster.settings["metadata"]["recipe"] == "viggo_quickstart"


def test_package_and_own_recipes_travel_with_the_job(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n")
    cluster = Cluster()
    submit(cluster, config_dir=tmp_path)
    assert {"runner/cli/main.py", "stages/train/stage.py", "recipes/config.yaml", "config/recipe/mine.yaml"} <= set(
        cluster.files
    )
    assert not [name for name in cluster.files if name.endswith(".pyc")]
    assert [name for name in cluster.files if name.endswith("dist-info/METADATA")]
    assert cluster.settings["entrypoint"].endswith("--config-dir config")


def test_cluster_that_has_the_package_is_sent_nothing() -> None:
    cluster = Cluster()
    submit(cluster, {"submit.code": "installed", "submit.python": "/opt/venv/bin/python"})
    assert "working_dir" not in cluster.settings["runtime_env"]
    assert cluster.settings["entrypoint"].startswith("/opt/venv/bin/python -m runner ")


def test_named_variables_are_passed_in_the_runtime_env_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "canary-0123456789")
    monkeypatch.setenv("OTHER", "other-0123456789")
    cluster = Cluster()
    submit(cluster, {"submit.env": ["MY_KEY"]})
    assert cluster.settings["runtime_env"]["env_vars"]["MY_KEY"] == "canary-0123456789"
    assert "OTHER" not in cluster.settings["runtime_env"]["env_vars"]
    rest = {key: value for key, value in cluster.settings.items() if key != "runtime_env"}
    assert "canary" not in json.dumps(rest)
    assert "canary" not in capsys.readouterr().out


def test_secret_in_the_command_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary-0123456789")
    with pytest.raises(RunnerError, match="the value of MY_KEY is part of the command line"):
        submit(Cluster(), {"submit.env": ["MY_KEY"], "dataset.prompt.system": "canary-0123456789"})


def test_stopped_job_has_the_time_to_save_a_checkpoint() -> None:
    cluster = Cluster()
    submit(cluster, {"train.checkpoints.on_stop_s": 90.0})
    assert int(cluster.settings["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 90


def test_what_only_works_here_is_refused() -> None:
    recipe = recipe_of({"storage.root": "runs", "storage.artifacts": "runs/a", "submit.env": ["NO_SUCH_VARIABLE_HERE"]})
    found = {problem.key for problem in jobs.portability_problems(recipe)}
    assert found == {"storage.root", "storage.artifacts", "submit.env"}


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", None])
def test_address_must_be_the_dashboards(address: str | None) -> None:
    with pytest.raises(RecipeError) as caught:
        jobs.dashboard_address(address)
    assert caught.value.problems[0].key == "cluster.address"


def test_log_continues_after_a_broken_connection(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(log=[["one\n", "tw", OSError("gone")], ["one\ntwo", "\n", "three\n"]])
    assert jobs.follow(cluster, "job", ADDRESS) == EXIT_DONE
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("ends", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", None, 1), ("FAILED", -9, 1), ("STOPPED", None, 130)],
)
def test_exit_code_is_the_jobs(ends: str, code: int | None, expected: int) -> None:
    assert jobs.follow(Cluster(ends=ends, code=code), "job", ADDRESS) == expected


def test_ctrl_c_leaves_the_job_and_says_how_to_return_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(log=[["one\n", KeyboardInterrupt()]])
    assert jobs.follow(cluster, "job-1", ADDRESS) == EXIT_INTERRUPTED
    assert cluster.stopped == []
    shown = capsys.readouterr().out
    assert f"python -m runner logs job=job-1 cluster.address={ADDRESS}" in shown
    assert "job-1 continues" in shown


def test_submit_can_return_at_once() -> None:
    cluster = Cluster(log=[])
    assert submit(cluster, follow=False) == EXIT_DONE
    assert cluster.state == "RUNNING"


def test_status_shows_no_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.status("job", ADDRESS, True, lambda address: Cluster()) == EXIT_DONE
    text = capsys.readouterr().out
    assert json.loads(text)["status"] == "RUNNING"
    assert "canary" not in text


def test_stop_waits_until_the_job_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster()
    assert jobs.stop("job", ADDRESS, lambda address: cluster, poll_s=0.0) == EXIT_DONE
    assert cluster.stopped == ["job"]
    assert "submit it again to continue" in capsys.readouterr().out


def test_unknown_job_is_named() -> None:
    with pytest.raises(RunnerError, match="has no job 'unknown'"):
        jobs.logs("unknown", ADDRESS, lambda address: Cluster())


@pytest.mark.parametrize("action", ["logs", "stop"])
def test_a_job_must_be_named(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([action, f"cluster.address={ADDRESS}"]) == EXIT_INVALID_RECIPE
    assert "job" in capsys.readouterr().err


def test_cluster_that_has_just_started_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_POLL_S", 0.0)
    cluster = Cluster()
    accept, refusals = cluster.submit_job, [RuntimeError("status code 500: No available agent to submit job")]

    def submit_job(**settings: Any) -> str:
        if refusals:
            raise refusals.pop()
        return accept(**settings)

    monkeypatch.setattr(cluster, "submit_job", submit_job)
    assert submit(cluster) == EXIT_DONE
