"""Kill it anywhere, give the same command again: the same artifacts, nothing done twice, nothing left running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_INTERRUPTED, EXIT_STAGE_FAILED
from runner.report.status import status_of
from tests.chaos.conftest import Reference
from tests.chaos.harness import STAGES, command, complete, continue_from, outcome, remove, send, start, statuses
from tests.chaos.moments import CASES, SYSTEM, Case, await_moment

pytestmark = pytest.mark.timeout(1200)

ENDS_WITHIN_S = 120.0  # of a run whose cluster lost a process

# These run with the end-to-end tests; all of them by `make chaos`.
_FAST = {"train-driver-SIGTERM-early", "infer-driver-SIGKILL-early"}
_PARAMETERS = [
    pytest.param(case, id=str(case), marks=[pytest.mark.e2e, *([] if str(case) in _FAST else [pytest.mark.chaos])])
    for case in CASES
]


@pytest.mark.parametrize("case", _PARAMETERS)
def test_killed_run_resumes(
    case: Case,
    reference: Callable[..., Reference],
    note: Callable[[dict[str, Any]], None],
    chaos_dir: Path,
) -> None:
    last = "query" if case.stage == "serve" else case.stage
    expected = reference(last, case.trainer)
    root = chaos_dir / str(case)
    remove(root)
    store = root / "artifacts" if case.stage == "publish" else expected.store
    shared = ["infer.engine=shared"] if case.target == "replica" else []
    line = command(root, expected.model, store, f"train.trainer={case.trainer}", f"stop_after={last}", *shared)
    continue_from(expected.root, root, before=case.stage)
    result: dict[str, Any] = {"case": str(case), "verdict": "failed", "at": time.time()}
    try:
        kill_and_repeat(case, root, line, result)
        check(case, last, expected, root, result)
        result["verdict"] = "passed"
    finally:
        result["wall_s"] = round(time.time() - result.pop("at"), 1)
        note(result)
    remove(root)


def kill_and_repeat(case: Case, root: Path, line: list[str], result: dict[str, Any]) -> None:
    running = start(root, line)
    send(await_moment(case, running), case.signal)
    killed_at = time.monotonic()
    result["exit_code"] = running.wait()
    result["ended_after_s"] = round(time.monotonic() - killed_at, 1)
    result["first"] = statuses(root)
    status = status_of(root / "latest")
    result["first_status"] = (status["status"], status["alive"])
    result["screen"] = running.shown()[-4000:]
    again, code = complete(root, line)
    result["second_exit_code"] = code
    result["second"] = statuses(root)
    result["left_over"] = running.left_over() + again.left_over()
    result["second_screen"] = again.shown()[-4000:]


def check_of_the_cluster(case: Case, root: Path, result: dict[str, Any]) -> None:
    """The run recovered, or ended soon as failed with one sentence."""
    assert result["exit_code"] in (0, EXIT_STAGE_FAILED), result["screen"]
    assert result["ended_after_s"] < ENDS_WITHIN_S
    if result["exit_code"] == EXIT_STAGE_FAILED:
        assert "Traceback" not in result["screen"]
        screen = result["screen"]  # the run's own sentence, or that of the stage that missed the process first
        assert screen.count("\nerror: ") + screen.count(" failed  after ") == 1, screen
        assert "the same command" in screen or "\nfailed; continue with: " in screen
        assert result["first_status"] == ("failed", False)


def check(case: Case, last: str, expected: Reference, root: Path, result: dict[str, Any]) -> None:
    if case.target == "driver" and case.signal == "SIGTERM":
        assert result["exit_code"] == EXIT_INTERRUPTED, result["screen"]
        assert "interrupted; continue with: python -m runner recipe=viggo_quickstart" in result["screen"]
        assert "Traceback" not in result["screen"]
    if case.target in SYSTEM:
        check_of_the_cluster(case, root, result)
    assert result["second_exit_code"] == 0, result["second_screen"]
    assert outcome(root, last) == outcome(expected.root, last)
    before = STAGES[: STAGES.index(case.stage)]
    for when in ("first", "second"):
        assert {name: result[when].get(name) for name in before} == dict.fromkeys(before, "skipped")
    if result["exit_code"] == 0:
        assert set(result["second"].values()) == {"skipped"}
    assert not result["left_over"]
