"""pass@k: the probability that at least one of k samples is right, without bias (arXiv 2107.03374).

    pass@k = 1 - C(n - c, k) / C(n, k)      n samples, c of them right

The share of problems that have a right one among their first k is the same in the mean and has a larger variance;
1 - (1 - c/n)^k is biased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Of one problem. Raises ValueError unless 0 <= right <= samples and 1 <= k <= samples."""
    if not 0 <= right <= samples:
        raise ValueError(f"pass@k: {right} right of {samples} samples")
    if not 1 <= k <= samples:
        raise ValueError(f"pass@k: k = {k} takes at least as many samples, there are {samples}")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> tuple[float, float]:
    """(mean over problems, its standard error); counts: (samples, right) of each problem. The error is over problems."""
    if not counts:
        raise ValueError("pass@k: there are no problems")
    shares = [pass_at_k(samples, right, k) for samples, right in counts]
    mean = math.fsum(shares) / len(shares)
    if len(shares) == 1:
        return mean, math.nan
    variance = math.fsum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
    return mean, math.sqrt(variance / len(shares))
