"""Intervals and tests against known values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages.evaluate.significance import (
    bootstrap_p_value,
    mcnemar_exact,
    percentile_interval,
    resampled_sums,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (72, 100, 0.6251, 0.7986), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_interval_has_published_values(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count, 0.95) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_nothing_says_nothing() -> None:
    assert wilson_interval(0, 0, 0.95) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(0, 0, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (8, 2, 0.109375), (3, 3, 1.0)]
)
def test_mcnemar_is_the_two_sided_binomial_test(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(p_value)


def test_mcnemar_takes_thousands_of_pairs() -> None:
    assert mcnemar_exact(3000, 2900) == pytest.approx(0.1975, abs=1e-3)
    assert mcnemar_exact(5000, 0) == 0.0


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (7, 3), (41, 17)])
def test_mcnemar_is_scipys_binomial_test_of_the_discordant_pairs(gained: int, lost: int) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one() -> None:
    rows = np.random.default_rng(1).uniform(0, 1, (400, 1))
    low, high = percentile_interval(resampled_sums(rows)[:, 0] / len(rows), 0.95)
    half = 1.96 * rows.std() / 20
    assert (low, high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=0.008)


def test_bootstrap_is_the_same_each_time_and_keeps_columns_paired() -> None:
    column = np.random.default_rng(2).uniform(0, 1, 50)
    sums = resampled_sums(np.column_stack([column, column]))
    assert (sums[:, 0] == sums[:, 1]).all()
    assert (sums == resampled_sums(np.column_stack([column, column]))).all()


def test_bootstrap_p_value_is_small_only_where_zero_is_far() -> None:
    assert bootstrap_p_value(np.full(999, 0.1)) == pytest.approx(0.002)
    assert bootstrap_p_value(np.array([-1.0, 1.0] * 500)) == 1.0
    assert bootstrap_p_value(np.zeros(100)) == 1.0
