"""What a person sees in a terminal while stages print wherever they can: the plan, one line a stage, the result."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_INTERRUPTED, EXIT_STAGE_FAILED
from tests.runner.report.noisy import MARKS, STEPS
from tests.terminal import Screen, Session, plain

PIPELINE = ("ingest", "train", "publish", "infer", "evaluate")
COLOUR = re.compile(r"\x1b\[[\d;]*3[0-7][\d;]*m")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a path of always the same length."""
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp") as folder:
        yield Path(folder)


class Shown:
    """A command in a terminal of that width: what stood there at any time, and what is left."""

    def __init__(self, place: Path, columns: int, *arguments: str, **environment: str) -> None:
        self.place, self.columns = place, columns
        stages = f"pipeline=[{','.join(PIPELINE)}]"
        local = [f"storage.root={place}/runs", f"storage.cache={place}/cache"]
        command = [sys.executable, "-m", "tests.runner.report.noisy", "recipe=viggo_quickstart", stages, *local]
        self.session = Session([*command, *arguments], columns, environment)

    def end(self) -> int:
        return self.session.wait()

    @property
    def raw(self) -> str:
        return self.session.raw

    @property
    def text(self) -> str:
        screen = Screen(self.columns)
        screen.feed(self.raw)
        return screen.text()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def log(self, stage: str) -> str:
        (path,) = self.place.glob(f"runs/viggo_quickstart/*/logs/{stage}.log")
        return path.read_text()


def assert_quiet(shown: Shown, stages: tuple[str, ...] = PIPELINE) -> None:
    """Nothing that a stage printed was on the terminal at any time, and all of it is in the stage's log."""
    for mark in MARKS:
        assert mark not in shown.raw, f"{mark} was shown:\n{shown.text}"
        for stage in stages:
            assert shown.log(stage).count(f"{stage} {mark}\n") >= 3, (stage, mark)


@pytest.mark.parametrize("columns", [40, 200])
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colour", "no colour", "dumb"])
def test_what_stages_print_is_in_their_logs_and_not_on_the_terminal(
    place: Path, columns: int, environment: dict[str, str]
) -> None:
    shown = Shown(place, columns, **environment)
    assert shown.end() == EXIT_DONE
    assert_quiet(shown)
    assert [line.split()[1] for line in shown.lines if line.startswith("✔")] == list(PIPELINE)
    assert bool(COLOUR.search(shown.raw)) == (not environment)
    assert ("\x1b[" in shown.raw) == ("TERM" not in environment)


def test_a_running_stage_has_one_line_with_progress_rate_and_time_left(place: Path) -> None:
    shown = Shown(place, 120, NOISY_STEP_S="0.2")  # long enough to be drawn several times
    shown.end()
    states = [line for line in re.split(r"[\r\n]+", plain(shown.raw)) if f"/{STEPS} steps" in line]
    whole = re.compile(r"\w+  \d+/12 steps  [\d.]+ s left  [\d.]+ steps/s  \(\d+ s\)  loss 0\.\d+")
    assert any(whole.search(line) for line in states)  # of whichever stage was drawn while it worked
    assert not [line for line in shown.lines if f"/{STEPS} steps" in line], "the live line stays on the screen"


def test_the_line_is_never_wider_than_the_terminal(place: Path) -> None:
    shown = Shown(place, 40)
    shown.end()
    states = [line for line in re.split(r"[\r\n]+", plain(shown.raw)) if f"/{STEPS} steps" in line]
    assert states
    assert max(map(len, states)) < 40


def test_a_terminal_that_is_made_narrower_and_wider_shows_the_run_to_its_end(place: Path) -> None:
    shown = Shown(place, 120)
    for columns, stage in ((50, "ingest"), (30, "train"), (160, "evaluate")):
        shown.session.read_until(lambda raw, stage=stage: f"{stage}  " in plain(raw) and "steps" in plain(raw))
        shown.session.resize(columns)
    assert shown.end() == EXIT_DONE
    assert_quiet(shown)
    assert [line.split()[1] for line in shown.lines if line.startswith("✔")] == list(PIPELINE)
    assert "Traceback" not in shown.raw


def test_a_failed_stage_is_named_with_its_cause_and_log(place: Path) -> None:
    shown = Shown(place, 200, NOISY_FAIL="train")
    assert shown.end() == EXIT_STAGE_FAILED
    assert_quiet(shown, ("ingest", "train"))
    failed = next(line for line in shown.lines if line.startswith("✘"))
    assert failed.endswith("ValueError: the disk is full")
    assert "Traceback" not in shown.raw
    assert "Traceback" in shown.log("train")
    assert re.search(r"log: \S+/logs/train.log", shown.text)


def test_a_result_below_the_gate_says_what_was_missed(place: Path) -> None:
    shown = Shown(place, 200, NOISY_SCORE="0.3")
    assert shown.end() == EXIT_GATE_REFUSED
    assert_quiet(shown)
    assert "exact_match is 0.3; >= 0.5 is required (off by 0.2)" in shown.text


def test_an_interrupted_run_gives_the_terminal_back_with_its_cursor(place: Path) -> None:
    shown = Shown(place, 120, NOISY_HANG="train")
    shown.session.read_until(lambda raw: f"train  {STEPS}/{STEPS} steps" in plain(raw))
    shown.session.type("\x03")
    assert shown.end() == EXIT_INTERRUPTED
    assert_quiet(shown, ("ingest", "train"))
    assert any(line.startswith("■ train") for line in shown.lines)
    assert shown.raw.rindex("\x1b[?25h") > shown.raw.rindex("\x1b[?25l")
    assert "Traceback" not in shown.raw


def test_jobs_of_a_sweep_one_after_another_leave_the_terminal_quiet(place: Path) -> None:
    shown = Shown(place, 120, "-m", "train.lora_rank=4,8", "max_parallel_jobs=1")
    assert shown.end() == EXIT_DONE
    for mark in MARKS:
        assert mark not in shown.raw, f"{mark} was shown:\n{shown.text}"
    logs = list(place.glob("runs/viggo_quickstart/*/logs/train.log"))
    assert len(logs) == 2
    assert all(f"train {mark}\n" in log.read_text() for log in logs for mark in MARKS)


@pytest.mark.parametrize("columns", [40, 200])
def test_jobs_at_the_same_time_have_a_line_each_that_is_gone_at_their_end(columns: int) -> None:
    session = Session([sys.executable, "-m", "tests.runner.report.jobs_view"], columns, {})
    assert session.wait() == EXIT_DONE
    screen = Screen(columns)
    screen.feed(session.raw)
    lines = screen.text().splitlines()
    assert sorted(lines) == [f"job {number} train.lora_rank={4 * number}: ended with 0" for number in (1, 2, 3)]
    states = [line.rstrip() for line in re.split(r"[\r\n]+", plain(session.raw)) if "/12 steps" in line]
    assert {name for line in states for name in re.findall(r"job \d", line)} == {"job 1", "job 2", "job 3"}
    assert max(map(len, states)) < columns
    assert any("train.lora_rank=8" in line for line in states) == (columns == 200)
    assert "noise" not in session.raw


@pytest.mark.parametrize("verbose", [False, True])
def test_digests_are_shown_at_the_end_only_when_asked_for(place: Path, *, verbose: bool) -> None:
    shown = Shown(place, 200, *(["hydra.verbose=true"] if verbose else []))
    assert shown.end() == EXIT_DONE
    digests = [line for line in shown.lines if re.search(r"^adapter +[\d.]+ \w+  [0-9a-f]{12}  /", line)]
    assert len(digests) == verbose
