"""What a log without a terminal gets of a running stage: what has changed, and once a minute that it still works."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from runner.report import log_lines
from runner.report.log_lines import LogLines
from runner.report.terminal import Report


class Log:
    """Lines of a stage, by a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 0.0
        self.printed: list[str] = []
        self.lines = LogLines("infer", self.printed.append, lambda: self.at)

    def work(self, seconds: int, **event: Any) -> None:
        """Report the event, if one is given, at each second."""
        for _ in range(seconds):
            self.at += 1
            if event:
                self.lines.update({"total": None, "unit": "s", **event, "done": event.get("done", self.at)})
            self.lines.look()


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_state_that_stays_reported_once_and_then_every_minute_with_the_time_so_far(log: Log) -> None:
    log.work(140, state="starting the engine")
    assert log.printed == [
        "  infer: starting the engine  (15 s)",
        "  infer: starting the engine  (1 min 15 s)",
        "  infer: starting the engine  (2 min 15 s)",
    ]


def test_a_new_state_reported_when_the_last_line_is_15_s_old(log: Log) -> None:
    log.work(18, state="starting the engine")
    log.work(4, state="starting the engine: loading the weights")
    log.work(20, state="starting the engine: compiling")
    assert log.printed == ["  infer: starting the engine  (15 s)", "  infer: starting the engine: compiling  (30 s)"]


def test_numbers_that_advance_are_reported_every_15_s(log: Log) -> None:
    for number in range(1, 46):
        log.work(1, done=number, total=100, unit="prediction", tokens_per_s=20 + number)
    assert [line.split("/")[0] for line in log.printed] == [f"  infer: {number}" for number in (15, 30, 45)]
    assert log.printed[1].endswith("50 tokens/s  (30 s)")


def test_numbers_that_stand_still_are_reported_every_minute_although_the_time_left_changes(log: Log) -> None:
    for number in (1, 2, 3):
        log.work(5, done=number, total=100, unit="step")
    log.work(100, done=3, total=100, unit="step")
    assert [line.split("(")[1] for line in log.printed] == ["15 s)", "1 min 15 s)"]


def test_a_stage_that_reports_nothing_is_at_work(log: Log) -> None:
    log.work(70)
    assert log.printed == ["  infer: at work  (1 min)"]


def test_a_log_gets_the_lines_of_the_running_stage_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "_POLL_S", 0.01)
    monkeypatch.setattr(log_lines, "_CHANGED_EVERY_S", 0.0)
    stream = io.StringIO()
    report = Report(stream)
    report.stage_started("infer")
    for state in ("starting the engine", "starting the engine: compiling"):
        report.progress("infer", {"done": 1, "total": None, "unit": "s", "state": state})
        for _ in range(500):
            if f"  infer: {state}  (0 s)" in stream.getvalue().splitlines():
                break
            time.sleep(0.01)
    report.stop()
    shown = stream.getvalue()
    report.progress("infer", {"done": 2, "total": None, "unit": "s", "state": "something else"})
    time.sleep(0.05)
    assert stream.getvalue() == shown
    assert shown.splitlines()[-2:] == [
        "  infer: starting the engine  (0 s)",
        "  infer: starting the engine: compiling  (0 s)",
    ]
