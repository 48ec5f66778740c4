"""The commands of README.md and docs/ that need a run, as they are written there, on fewer rows and steps."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runner.errors import EXIT_DONE
from tests.paths import ROOT
from tests.recipes.test_docs import commands

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(3600)]
SMALL = ("train.max_samples=32", "dataset.max_rows.test=16", "evaluate.require={}", "serve.port=0")
# What a recipe for four GPUs is given on a machine without one, as the pages themselves do it.
HERE = ("model=smollm2_135m", "dataset=viggo_generated", "storage=local", "cluster=local_cpu")
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


def written(pattern: str) -> list[list[str]]:
    """The pages' commands that match."""
    found = [each for each in commands() if re.search(pattern, " ".join(each))]
    assert found, f"no page has a command like {pattern}"
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands are typed, one after the other."""
    return tmp_path_factory.mktemp("desk")


def typed(desk: Path, arguments: Sequence[str]) -> str:
    """What the command prints, which must be done."""
    done = subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=desk, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == EXIT_DONE, f"{shlex.join(arguments)}\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("arguments", written(r"^(run )?recipe=viggo_quickstart( |$)"), ids=" ".join)
def test_a_run_of_the_quickstart_as_written_is_done(arguments: list[str], desk: Path) -> None:
    assert "exact match" in typed(desk, [*arguments, *SMALL]).lower()


@pytest.mark.parametrize("arguments", written(r"^(run )?recipe=viggo_qwen7b( |$)"), ids=" ".join)
def test_a_run_of_the_flagship_as_written_is_done(arguments: list[str], desk: Path) -> None:
    assert "exact match" in typed(desk, [*arguments, *SMALL, *(each for each in HERE if each not in arguments)]).lower()


@pytest.mark.parametrize("arguments", written(r"^status|^diff recipe=viggo_q.* other=latest"), ids=" ".join)
def test_a_question_about_runs_is_answered_where_there_are_some(arguments: list[str], desk: Path) -> None:
    assert typed(desk, [*arguments, *(HERE[2:3] if "recipe=viggo_qwen7b" in arguments else ())])


@pytest.mark.parametrize("arguments", written(r"^-m recipe=viggo_quickstart"), ids=" ".join)
def test_a_sweep_as_written_is_done(arguments: list[str], desk: Path) -> None:
    few = ["hydra.sweeper.n_trials=2"] if "sweep=optuna" in arguments else []
    before = len(list((desk / "runs" / "sweeps").glob("*/sweep.json")))
    typed(desk, [*arguments, *SMALL, *few])
    assert len(list((desk / "runs" / "sweeps").glob("*/report.html"))) == before + 1


def served(desk: Path, arguments: Sequence[str], log: Path) -> str:
    """What `serve` prints until its endpoint stands, and is then interrupted."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments], cwd=desk, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        while "Press Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    return log.read_text()


def with_own_ids(word: str, ids: dict[str, Iterator[str]]) -> str:
    """The word with ids of its kind (runs, sweep) in the place of the page's."""
    return ID.sub(lambda _: next(ids[word.partition("=")[0]]), word)


@pytest.mark.parametrize("arguments", written(r"^serve (runs|sweep)="), ids=" ".join)
def test_adapters_of_a_sweep_are_served_as_written(arguments: list[str], desk: Path, tmp_path: Path) -> None:
    """Of the first sweep of the pages, at a free port."""
    (sweep, *_) = sorted((desk / "runs" / "sweeps").glob("*/sweep.json"))
    runs = [each for each in dict.fromkeys(ID.findall(sweep.read_text())) if each != sweep.parent.name]
    ids = {"runs": iter(runs), "sweep": iter([sweep.parent.name])}
    words = [with_own_ids(word, ids) for word in arguments if not word.startswith("serve.port=")]
    shown = served(desk, [*words, "serve.port=0"], tmp_path / "log")
    assert len(set(re.findall(r"SmolLM2[\w.-]+:[\w.-]+", shown))) >= 2
