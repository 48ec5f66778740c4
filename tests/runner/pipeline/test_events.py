"""Events that observers of a run receive, and that an observer that fails costs nothing."""

from __future__ import annotations

from typing import Any

import pytest

from runner.errors import EXIT_DONE
from runner.pipeline.engine import run
from runner.pipeline.events import (
    Event,
    Observers,
    Remarked,
    ResultsWritten,
    RunEnded,
    RunStarted,
    StageFinished,
    StageStarted,
    WorkEnded,
)
from runner.recipe.load import compose, to_recipe


class Noted:
    """Keeps the events, without those about the terminal."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


class Broken:
    def notify(self, event: Event) -> None:
        raise ValueError("cannot look")


def test_observers_are_told_what_happens_in_order(fake_stages: Any, local: list[str]) -> None:
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", "pipeline=[ingest,train]", *local]))
    noted = Noted()
    code, summary = run(recipe, options, "again", [noted])
    received = noted.of(RunStarted, StageStarted, StageFinished, WorkEnded, ResultsWritten, RunEnded)
    per_stage = [StageStarted, StageFinished]
    assert [type(event) for event in received] == [
        RunStarted,
        *per_stage,
        *per_stage,
        WorkEnded,
        ResultsWritten,
        RunEnded,
    ]
    assert [event.record.name for event in noted.of(StageFinished)] == ["ingest", "train"]
    ended = received[-1]
    assert (ended.code, ended.command, ended.summary) == (code, "again", summary)
    assert (ended.folder / "summary.json").is_file()


def test_a_run_without_observers_is_a_run(fake_stages: Any, local: list[str]) -> None:
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", "pipeline=[ingest]", *local]))
    assert run(recipe, options, "", [])[0] == EXIT_DONE


def test_an_observer_that_fails_costs_neither_the_run_nor_the_others(
    fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", "pipeline=[ingest]", *local]))
    noted = Noted()
    assert run(recipe, options, "", [Broken(), noted])[0] == EXIT_DONE
    assert noted.of(RunEnded)
    assert "cannot look" in capfd.readouterr().err


def test_an_interruption_goes_through_an_observer() -> None:
    class Stopped:
        def notify(self, event: Event) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers([Stopped()]).notify(Remarked("text"))
