"""What is left on a terminal after a run, a failure, a gate, an interrupt and a sweep, as text.

UPDATE_GOLDEN=1 writes the captures again.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_INTERRUPTED, EXIT_STAGE_FAILED
from tests.paths import GOLDEN
from tests.runner.report.noisy import STEPS
from tests.terminal import Screen, Session, plain

COLUMNS, WIDE = 100, 200
PIPELINE = "pipeline=[ingest,train,publish,infer,evaluate]"
CASES = {
    "run": (EXIT_DONE, [], {}),
    "failure": (EXIT_STAGE_FAILED, [], {"NOISY_FAIL": "train"}),
    "gate": (EXIT_GATE_REFUSED, [], {"NOISY_SCORE": "0.3"}),
    "interrupt": (EXIT_INTERRUPTED, [], {"NOISY_HANG": "train"}),
    "sweep": (EXIT_DONE, ["-m", "train.lora_rank=4,8", "max_parallel_jobs=1"], {}),
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a path of always the same length: a longer one is folded elsewhere."""
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp") as folder:
        yield Path(folder)


def settled(text: str, place: Path) -> str:
    """The text without what differs from run to run: the folder, run ids and times."""
    text = text.replace(str(place), "/tmp/rrXXXXXXXX")
    text = re.sub(r"20\d{6}-\d{6}-[0-9a-f]{6}", "20260101-120000-abcdef", text)
    text = re.sub(r" +(\d+ min )?[\d.]+ (s|min)\b", " 0.5 s", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_the_terminal_shows(case: str, place: Path) -> None:
    code, arguments, environment = CASES[case]
    local = [f"storage.root={place}/runs", f"storage.cache={place}/cache"]
    command = [sys.executable, "-m", "tests.runner.report.noisy", "recipe=viggo_quickstart", PIPELINE, *local]
    columns = WIDE if case == "sweep" else COLUMNS
    session = Session([*command, *arguments], columns, environment)
    if "NOISY_HANG" in environment:
        session.read_until(lambda raw: f"train  {STEPS}/{STEPS} steps" in plain(raw))
        session.type("\x03")
    assert session.wait() == code
    screen = Screen(columns)
    screen.feed(session.raw)
    found, golden = settled(screen.text(), place), GOLDEN / "terminal" / f"{case}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text()
