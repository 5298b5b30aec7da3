"""Do two ways of training differ? Student's paired test on scores of the same seeds, for a table of many such comparisons.

    t = mean(d) sqrt(n) / s,   d_i = value_i - baseline_i over n seeds,   p = P(|T| > |t|) with n - 1 degrees of freedom

It is the test whose interval is `tinyeval.paired_difference`. Sign flips, which assume less, have 2^n patterns and can
say nothing with the three seeds that an experiment of training can afford; this test can, if the differences are normal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from tinyeval import student_t
from tinyeval.paired import paired_difference
from tinyeval.statistics.paired_items import PairedComparison


def paired_runs(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> PairedComparison:
    """Compare scores whose i-th entries belong to the same seed; of one seed nothing can be said, and p is 1.

    Raises ValueError for no seeds, sequences of different lengths and scores that are not finite.
    """
    found = paired_difference(values, baseline, confidence)
    if found.n == 1:
        return PairedComparison(found.mean, found.low, found.high, 1.0, 1, "student")
    spread = statistics.stdev(value - base for value, base in zip(values, baseline, strict=True))
    if spread > 0:
        p = 2 * student_t.tail(abs(found.mean) * math.sqrt(found.n) / spread, found.n - 1)
    else:
        p = 1.0 if found.mean == 0 else 0.0
    return PairedComparison(found.mean, found.low, found.high, min(1.0, p), found.n, "student")
