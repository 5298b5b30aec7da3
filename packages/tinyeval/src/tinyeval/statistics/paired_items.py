"""Do two models differ on the same items? Tests on the differences item by item, where what is hard for both cancels.

    mcnemar      scores 0 or 1: of the b + c items that exactly one of the two solved, b fell to the first. Without a
                 difference b ~ Binomial(b + c, 1/2); p = 2 P(B <= min(b, c)), at most 1 (McNemar 1947, the exact form).
    sign_flip    any scores: without a difference each d_i = a_i - b_i is as likely as -d_i. p is the share of sign patterns
                 whose |mean| reaches the observed one: all 2^k of them where k <= 14 differences are not zero (Fisher
                 1935), else of `resamples` seeded draws, (1 + reached) / (1 + resamples), which is never 0.

Both tests hold their level: of models that do not differ they call at most `level` different, whatever the number of items.

How many items a difference needs (Connor 1987), with d the difference, q the share of items on which the two disagree and z
the normal quantiles of 1 - level / 2 and of the power:

    n = ((z_level sqrt(q) + z_power sqrt(q - d^2)) / d)^2

For d = 0.02 at level 0.05 and power 0.8: q = 0.05: 979 items; q = 0.1: 1,960; q = 0.2: 3,923; q = 0.5 (two models that fail
independently at half the items): 9,809. A test set of 1,000 items cannot see 2 % unless the models are much alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinyeval.paired import paired_difference

Method = Literal["mcnemar", "sign flip", "student", "blocks"]
RESAMPLES = 10_000
EXACT_DIFFERENCES = 14  # 2^14 = 16,384 patterns: about as many as are drawn otherwise
_BLOCK = 4_000_000  # signs held at a time
_ROUNDING = 1e-12  # two sums of the same numbers in another order count as equal


@dataclass(frozen=True)
class PairedComparison:
    """Mean difference to the baseline over `n` items, Student's interval of it, and the p-value of no difference at all."""

    mean: float
    low: float
    high: float
    p: float
    n: int
    method: Method


def paired_items(
    values: Sequence[float],
    baseline: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedComparison:
    """Compare scores whose i-th entries belong to the same item: McNemar's test where all are 0 or 1, else sign flips.

    Raises ValueError for no items, sequences of different lengths and scores that are not finite.
    """
    found = paired_difference(values, baseline, confidence)
    if set(values) | set(baseline) <= {0, 1}:
        better = sum(value > base for value, base in zip(values, baseline, strict=True))
        worse = sum(value < base for value, base in zip(values, baseline, strict=True))
        return PairedComparison(found.mean, found.low, found.high, mcnemar(better, worse), found.n, "mcnemar")
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    p = sign_flip(differences, resamples=resamples, seed=seed)
    return PairedComparison(found.mean, found.low, found.high, p, found.n, "sign flip")


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value for `better` items that only the one, and `worse` that only the other solved.

    Raises ValueError for negative counts.
    """
    if better < 0 or worse < 0:
        raise ValueError(f"mcnemar: counts cannot be negative, got {better} and {worse}")
    n = better + worse
    patterns = below = 1  # of n coins, those with no head
    for heads in range(min(better, worse)):
        patterns = patterns * (n - heads) // (heads + 1)
        below += patterns
    return min(1.0, 2 * below / 2**n)


def sign_flip(differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of the mean of ``differences`` under random signs.

    Raises ValueError for no differences, numbers that are not finite and fewer than one resample.
    """
    if not differences or not all(map(math.isfinite, differences)) or resamples < 1:
        raise ValueError("sign_flip: needs finite differences and at least one resample")
    kept = np.array([one for one in differences if one], dtype=np.float64)
    if not kept.size:
        return 1.0
    reach = abs(float(kept.sum())) - _ROUNDING * float(np.abs(kept).sum())
    if kept.size <= EXACT_DIFFERENCES:
        patterns = np.arange(2**kept.size)[:, None] >> np.arange(kept.size) & 1
        return float(np.mean(np.abs(_signed_sums(patterns, kept)) >= reach))
    draw = np.random.default_rng(seed)
    reached, done = 0, 0
    while done < resamples:
        rows = min(resamples - done, max(1, _BLOCK // kept.size))
        bits = np.unpackbits(draw.integers(0, 256, (rows, -(-kept.size // 8)), dtype=np.uint8), axis=1)
        reached += int(np.count_nonzero(np.abs(_signed_sums(bits[:, : kept.size], kept)) >= reach))
        done += rows
    return (1 + reached) / (1 + resamples)


def items_needed(difference: float, disagreement: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """Items on which two models must be compared to find ``difference`` in ``power`` of the cases (see the module).

    disagreement: share of items that exactly one of the two solves, at least ``difference``. Raises ValueError otherwise,
    or for a power or level outside 0 to 1.
    """
    if not 0 < difference <= disagreement <= 1:
        raise ValueError(
            f"items_needed: needs 0 < difference <= disagreement <= 1, got {difference} and {disagreement}"
        )
    if not (0 < power < 1 and 0 < level < 1):
        raise ValueError(f"items_needed: power and level lie between 0 and 1, not {power} and {level}")
    normal = statistics.NormalDist()
    reach = normal.inv_cdf(1 - level / 2) * math.sqrt(disagreement)
    reach += normal.inv_cdf(power) * math.sqrt(disagreement - difference**2)
    return math.ceil((reach / difference) ** 2)


def _signed_sums(bits: NDArray[np.integer], kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums with the signs that bits (R, k) stand for: (R,)."""
    return 2 * (bits.astype(np.float64) @ kept) - kept.sum()
