"""A mean with its standard error: how far it would move if other items of the same kind had been drawn.

    of n scores with sample variance s^2        se = s / sqrt(n),     s^2 = sum (x - mean)^2 / (n - 1)
    of k successes in n trials, p = k / n       se = sqrt(p (1 - p) / n)

The first is lm-eval's rule and is also used for items scored 0 or 1, where it is sqrt(p (1 - p) / (n - 1)). The second says
0 for a model that solves none or all; its interval is therefore Wilson's (1927), which is open to one side only there:

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tinyeval import student_t


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` items, its standard error (infinite for one item) and its confidence interval."""

    mean: float
    standard_error: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.standard_error:.4f} (n={self.n})"


def mean_estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of independent ``values``, its interval by Student's t with n - 1 degrees of freedom.

    Raises ValueError for no values, numbers that are not finite, or a confidence that is not between 0 and 1.
    """
    _require_confidence(confidence)
    if not values:
        raise ValueError("a mean needs at least one value")
    if not all(map(math.isfinite, values)):
        raise ValueError("a mean needs finite numbers")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Estimate(mean, math.inf, -math.inf, math.inf, 1)
    error = statistics.stdev(values) / math.sqrt(n)
    reach = student_t.quantile((1 + confidence) / 2, n - 1) * error
    return Estimate(mean, error, mean - reach, mean + reach, n)


def proportion_estimate(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """The share ``successes`` / ``n`` of independent trials, with Wilson's interval.

    Raises ValueError unless 0 <= successes <= n and n >= 1, or for a confidence that is not between 0 and 1.
    """
    _require_confidence(confidence)
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    error = math.sqrt(share * (1 - share) / n)
    shrunk = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrunk
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrunk
    return Estimate(share, error, max(0.0, middle - reach), min(1.0, middle + reach), n)


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not {confidence}")
