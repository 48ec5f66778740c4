"""Comparisons as a recipe writes them."""

from __future__ import annotations

import pytest

from runner.recipe.comparison import Comparison, parse_comparison


@pytest.mark.parametrize(
    ("text", "sign", "limit"),
    [(">=0.85", ">=", 0.85), (" < .5 ", "<", 0.5), ("==1", "==", 1.0), (">-1e-3", ">", -0.001), ("<=1.", "<=", 1.0)],
)
def test_a_comparison_is_a_sign_and_a_number(text: str, sign: str, limit: float) -> None:
    assert parse_comparison(text) == Comparison(sign, limit)


@pytest.mark.parametrize("text", ["0.6", "=>0.6", ">=1.2.3", ">= sixty", ">=nan", ">=inf", ">=1e", "", ">="])
def test_other_text_is_none(text: str) -> None:
    assert parse_comparison(text) is None


@pytest.mark.parametrize(
    ("text", "holds"), [(">=0.5", True), (">0.5", False), ("<=0.5", True), ("<0.5", False), ("==0.5", True)]
)
def test_the_limit_itself(text: str, holds: bool) -> None:
    comparison = parse_comparison(text)
    assert comparison is not None
    assert comparison.holds(0.5) is holds
