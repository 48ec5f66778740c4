"""Sizes, durations, counts and rates as a person writes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from runner.report.live import fitting
from runner.report.progress_text import progress_text
from runner.text import count_text, duration_text, rate_text, size_text
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.04, "0.04 s"), (0.5, "0.5 s"), (3.44, "3.4 s"), (9.96, "10 s"), (48.4, "48 s"), (59.7, "1 min"),
        (185, "3 min 5 s"), (3600, "1 h"), (4320, "1 h 12 min"), (183600, "2 d 3 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (273e6, "260.4 MiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("per_s", "unit", "text"),
    [
        (1.94, "step", "1.9 steps/s"), (1234.5, "rows", "1,234 rows/s"), (0.08, "step", "12 s/step"),
        (3.5 * 1024**2, "bytes", "3.5 MiB/s"), (0.002, "prediction", "8 min 20 s/prediction"),
    ],
)  # fmt: skip
def test_rates_have_the_unit_that_reads_best(per_s: float, unit: str, text: str) -> None:
    assert rate_text(per_s, unit) == text


def test_counts_have_the_unit_in_the_right_form() -> None:
    assert [count_text(count, "row") for count in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
    assert [count_text(1, unit) for unit in ("rows", "class", "s", "CPU")] == ["1 row", "1 class", "1 s", "1 CPU"]
    assert [count_text(2, unit) for unit in ("rows", "class", "batch")] == ["2 rows", "2 classes", "2 batches"]
    assert [count_text(count, "row is", "rows are") for count in (1, 2)] == ["1 row is", "2 rows are"]


COUNTED = re.compile(
    r"^ (more |different |test |train )?(row|sample|file|prediction|job|image|step|tensor|label|run|answer|pair)s\b"
)


def _counts_in(tree: ast.AST) -> Iterator[int]:
    """Lines of f-strings with a number, known by its format or by `len`, and a plural. Constants are more than one."""
    for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        for each, after in pairwise(text.values):
            if isinstance(each, ast.FormattedValue) and isinstance(after, ast.Constant):
                number = ast.unparse(each.value)
                counted = number.startswith("len(") or "," in ast.unparse(each.format_spec or ast.Constant(""))
                if counted and not number.isupper() and COUNTED.match(str(after.value)):
                    yield text.lineno


def test_a_count_of_a_message_is_written_with_its_unit_by_count_text() -> None:
    """No "1 rows"."""
    files = [path for folder in ("runner", "stages") for path in (ROOT / folder).rglob("*.py")]
    found = [f"{path}:{line}" for path in files for line in _counts_in(ast.parse(path.read_text()))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"done": 37, "total": 64, "unit": "step", "rate_per_s": 1.94, "seconds_left": 48.0, "loss": 0.41, "lr": None},
         "37/64 steps  48 s left  1.9 steps/s  loss 0.41"),
        ({"done": 3 << 20, "total": 5 << 20, "unit": "bytes"}, "3.0 MiB of 5.0 MiB"),
        ({"done": 12, "total": None, "unit": "s", "state": "starting replicas"}, "starting replicas"),
        ({"done": 5, "total": None, "unit": "rows", "output_tokens_per_s": 120.0, "first_token_s": 0.25},
         "5 rows  120 output tokens/s  first token 0.25 s"),
    ],
)  # fmt: skip
def test_progress_has_the_most_important_first(event: dict[str, object], text: str) -> None:
    assert progress_text(event) == text


@pytest.mark.parametrize(
    ("width", "line"),
    [(40, "⠋ train  3/4 steps  2 s left  loss 0.1"), (30, "⠋ train  3/4 steps  2 s left"), (20, "⠋ train  3/4 steps"),
     (6, "⠋ tra…")],
)  # fmt: skip
def test_parts_that_do_not_fit_are_left_out(width: int, line: str) -> None:
    assert fitting(["⠋", "train", "3/4 steps", "2 s left", "", "loss 0.1"], width) == line
