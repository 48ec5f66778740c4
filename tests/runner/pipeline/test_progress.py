"""The rate of a stage and the time it has left: from what it did lately, not from its start."""

from __future__ import annotations

from typing import Any

import pytest

from runner.pipeline.engine.progress import Pace
from runner.report.live import StageLine


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def measured(*points: tuple[float, float], total: float | None = 1000, unit: str = "row") -> dict[str, Any]:
    """The last event of those (time, done)."""
    clock = Clock()
    pace, event = Pace(clock), {}
    for clock.now, done in points:
        event = pace.measured({"done": done, "total": total, "unit": unit})
    return event


def test_a_slow_start_does_not_count_after_a_minute() -> None:
    start = [(0.0, 0.0), (600.0, 10.0)]
    event = measured(*start, *((600.0 + second, 10.0 + second) for second in range(1, 91)))
    assert event["rate_per_s"] == pytest.approx(1.0)
    assert event["seconds_left"] == pytest.approx(900.0)


def test_what_was_reused_from_an_earlier_run_does_not_count_as_speed() -> None:
    event = measured((0.0, 900.0), (10.0, 910.0))
    assert (event["rate_per_s"], event["seconds_left"]) == (1.0, 90.0)


def test_nothing_is_known_before_two_advances() -> None:
    assert measured((0.0, 0.0))["rate_per_s"] is None
    assert measured((0.0, 5.0), (3.0, 5.0))["seconds_left"] is None


def test_time_left_shrinks_between_two_advances_and_grows_when_one_is_overdue() -> None:
    steps = [(0.0, 0.0), (10.0, 1.0), (20.0, 2.0)]
    assert measured(*steps, (25.0, 2.0), total=4)["seconds_left"] == pytest.approx(15.0)
    late = measured(*steps, (120.0, 2.0), total=4)
    assert late["rate_per_s"] == pytest.approx(1 / 100)


def test_one_advance_each_two_minutes_has_a_rate() -> None:
    assert measured((0.0, 0.0), (120.0, 1.0), (240.0, 2.0))["rate_per_s"] == pytest.approx(1 / 120)


def test_work_that_begins_again_has_a_rate_of_its_own() -> None:
    assert measured((0.0, 0.0), (1.0, 100.0), (2.0, 0.0))["rate_per_s"] is None
    assert measured((0.0, 0.0), (1.0, 100.0), (2.0, 0.0), (3.0, 5.0))["rate_per_s"] == 5.0


def test_waiting_has_no_rate_and_an_unknown_total_no_time_left() -> None:
    assert measured((0.0, 0.0), (5.0, 5.0), total=None, unit="s")["rate_per_s"] is None
    assert measured((0.0, 0.0), (5.0, 5.0), total=None)["seconds_left"] is None


def test_the_live_line_is_measured_again_each_time_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("runner.report.live.Pace", lambda: Pace(clock))
    line = StageLine("train")
    for clock.now, done in ((0.0, 0), (10.0, 1), (20.0, 2)):
        line.update({"done": done, "total": 4, "unit": "step"})
    assert "20 s left" in line.parts()
    clock.now = 25.0
    assert "15 s left" in line.parts()
