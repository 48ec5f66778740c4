"""Intervals and tests: how far a score may be from the truth, and whether two differ by more than chance."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_RESAMPLES = 1_000
_MIN_RESAMPLES = 200
_DRAWS = 100_000_000  # rows drawn in all; above 100,000 rows there are fewer resamples


def wilson_interval(successes: float, count: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927): (low, high); (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: the binomial chance of so uneven a split of the discordant pairs."""
    pairs = gained + lost
    if pairs == 0:
        return 1.0
    tail = sum(math.comb(pairs, k) for k in range(min(gained, lost) + 1))
    chance: float = 2 * tail / 2**pairs  # of integers: as a float, 2**-pairs is 0 from 1,075 pairs on
    return min(1.0, chance)


def resampled_sums(rows: Floats, seed: int = 0) -> Floats:
    """Column sums of bootstrap samples: rows (n x k) in, (resamples x k) out, the same for the same seed.

    Every sample draws n rows with replacement, the same ones for all columns, so that what stands in one row (two
    models' scores of it) stays paired. 1,000 samples, fewer (down to 200) above 100,000 rows.
    """
    import numpy as np

    count = len(rows)
    random = np.random.default_rng(seed)
    resamples = max(_MIN_RESAMPLES, min(_RESAMPLES, _DRAWS // max(count, 1)))
    sums = np.empty((resamples, rows.shape[1]))
    for index in range(resamples):
        sums[index] = np.bincount(random.integers(0, count, count), minlength=count) @ rows
    return sums


def percentile_interval(estimates: Floats, confidence: float) -> tuple[float, float]:
    """The middle share of bootstrap estimates (Efron's percentile interval)."""
    import numpy as np

    low, high = np.quantile(estimates, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def bootstrap_p_value(differences: Floats) -> float:
    """Two-sided p-value of no difference: how rarely the resampled differences cross zero; never below 1 / samples."""
    samples = len(differences)
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (samples + 1))
