"""Times before a first run, against what was measured."""

from __future__ import annotations

import re

import pytest

from benchmarks.common.measure import RESULTS
from benchmarks.runner.estimates import Case, cases
from runner.cluster.accelerators import GPUS, larger_gpus
from stages.models.speed.training import Method

TEXT = RESULTS.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.what)
def test_an_estimate_is_within_a_factor_of_what_was_measured(case: Case) -> None:
    assert case.factor <= 1.5
    _, _, section = TEXT.partition(f"<!-- begin {case.section} -->")
    measured = re.findall(r"[\d,]+\.?\d*", section.partition("<!-- end")[0])
    assert case.measured in [float(number.replace(",", "")) for number in measured if number.strip(",.")]


def test_the_table_of_estimates_is_that_of_the_code() -> None:
    _, _, section = TEXT.partition("<!-- begin estimates -->")
    for case in cases():
        assert f"| {case.what} | {case.section} | {case.measured:,.4g} | {case.estimated:,.4g} |" in section


def test_gradients_and_a_second_forward_pass_count() -> None:
    assert [Method(full, again).passes for full, again in ((False, False), (False, True), (True, True))] == [2, 3, 4]


def test_the_smallest_gpu_that_holds_it_comes_first() -> None:
    assert next(larger_gpus(30 << 30, GPUS["A10G"])) == "A100-40G"
    assert list(larger_gpus(200 << 30, GPUS["A10G"])) == []
