"""A clock that is set back, as by hand or at the end of summer time: what is newest remains newest."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_STAGE_FAILED
from runner.pipeline.runs import find_run, next_stamp
from runner.sweep.state import open_sweep
from tests import conftest

FUTURE = "20991231-235959"


def run_in_the_future(local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Path:
    """A run by a clock that is ahead."""
    with monkeypatch.context() as patch:
        patch.setattr(time, "strftime", lambda *_: FUTURE)
        assert main(["recipe=viggo_quickstart", *local, *words]) == EXIT_DONE
    (folder,) = (tmp_path / "runs" / "viggo_quickstart").iterdir()
    ahead = time.time() + 1e6
    os.utime(folder / "recipe.json", (ahead, ahead))
    return folder


def test_the_run_that_began_last_is_latest(
    fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first = run_in_the_future(local, tmp_path, monkeypatch)
    capfd.readouterr()
    assert main(["recipe=viggo_quickstart", *local, "train.lora_rank=4"]) == EXIT_DONE
    assert "the clock is behind the newest run of this recipe" in "".join(capfd.readouterr())
    (second,) = set(first.parent.iterdir()) - {first}
    assert find_run(tmp_path / "runs", "latest") == second == (tmp_path / "runs" / "latest").resolve()
    assert second.name > first.name


def test_a_run_that_failed_is_continued_and_not_the_finished_one_with_a_later_time(
    fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_in_the_future(local, tmp_path, monkeypatch)

    def fail(*_: Any) -> Any:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(conftest.Train, "run", fail)
        assert main(["recipe=viggo_quickstart", *local, "force=[train]"]) == EXIT_STAGE_FAILED
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_DONE
    (second,) = set(first.parent.iterdir()) - {first}
    assert (tmp_path / "runs" / "latest").resolve() == second


def test_a_new_sweep_is_the_newest(tmp_path: Path) -> None:
    (tmp_path / "sweeps" / f"{FUTURE}-abcdef").mkdir(parents=True)
    sweep, _ = open_sweep(tmp_path, ["a=1,2"], "command")
    assert sweep.sweep_id.startswith("21000101-000000")


def test_names_that_begin_with_no_time_count_for_nothing() -> None:
    names = ["20991399-000000-x", "", "mine", "19990101-000000-a"]
    assert abs(time.mktime(time.strptime(next_stamp(names), "%Y%m%d-%H%M%S")) - time.time()) < 5
