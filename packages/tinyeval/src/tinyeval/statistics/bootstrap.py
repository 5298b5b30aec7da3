"""Percentile bootstrap (Efron 1979): the interval of any statistic, by drawing the items again and again.

Of n rows, n are drawn with replacement; over `resamples` draws the statistic's (1 - confidence) / 2 and (1 + confidence) / 2
quantiles are the ends. Paired scores are paired rows: drawn together, what they share stays shared. For means of some 30
items or more it says what Student's interval says; it is for what has none: medians, ratios, areas under a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 4_000_000  # drawn indices held at a time


def bootstrap_interval(
    values: Sequence[float] | ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of ``statistic`` (default: the mean) of ``values``, (n,) scores or (n, k) scores that belong together.

    The same seed gives the same interval. Raises ValueError for no values, numbers that are not finite, a confidence that
    is not between 0 and 1, or fewer than one resample.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim not in (1, 2) or not rows.size or not np.isfinite(rows).all():
        raise ValueError("a bootstrap needs finite numbers, one or several for each item")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"a bootstrap needs 0 < confidence < 1 and resamples, got {confidence} and {resamples}")
    draw = np.random.default_rng(seed)
    n = len(rows)
    found: list[float] = []
    while len(found) < resamples:
        count = min(resamples - len(found), max(1, _BLOCK // n))
        drawn = draw.integers(0, n, (count, n))
        if statistic is not None:
            found.extend(float(statistic(rows[indices])) for indices in drawn)
        elif rows.ndim == 1:
            found.extend(rows[drawn].mean(axis=1).tolist())
        else:
            raise ValueError("a bootstrap of several scores an item needs a statistic")
    low, high = np.quantile(found, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)
