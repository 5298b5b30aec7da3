"""Is one way of doing a thing better than another? Both done once for each seed, compared within each seed.

With d_i = value_i - baseline_i over n seeds, mean d and sample standard deviation s, the interval

    d  -+  t(1 - (1 - confidence) / 2, n - 1) s / sqrt(n)

holds the true difference in `confidence` of all such experiments, if the differences are normal (Student 1908). What
both arms of a seed share - the order of the data above all - cancels. Where the interval contains 0 the two are *not
distinguishable*: with so few seeds a difference of this size comes about by chance. Two ways that do not differ are told
apart in 1 - `confidence` of such comparisons all the same: of twenty at 95 %, in one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tinyeval import student_t


@dataclass(frozen=True)
class PairedDifference:
    """Mean of value - baseline over `n` pairs and its confidence interval, which is infinite for one pair."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def distinguishable(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def paired_difference(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> PairedDifference:
    """The difference of ``values`` to ``baseline``, whose i-th entries belong together.

    Raises ValueError for no pairs, sequences of different lengths, numbers that are not finite, or a confidence that is
    not between 0 and 1.
    """
    if len(values) != len(baseline) or not values:
        raise ValueError(
            f"a paired difference needs as many values as baselines, got {len(values)} and {len(baseline)}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not {confidence}")
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    if not all(map(math.isfinite, differences)):
        raise ValueError("a paired difference needs finite numbers")
    mean, n = statistics.fmean(differences), len(differences)
    if n == 1:
        return PairedDifference(mean, -math.inf, math.inf, 1)
    reach = student_t.quantile((1 + confidence) / 2, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return PairedDifference(mean, mean - reach, mean + reach, n)
