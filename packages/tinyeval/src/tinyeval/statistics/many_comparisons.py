"""Holm's correction (1979): of many comparisons, the chance of even one false verdict stays at the level.

With the p-values sorted, p_(1) <= ... <= p_(m), the adjusted ones are max over i <= j of min(1, (m - i + 1) p_(i)). Uniformly
stronger than Bonferroni's m p, and like it valid however the comparisons depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: those at or below a level are significant at it, all together.

    Raises ValueError for numbers outside 0 to 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("holm: p-values lie between 0 and 1")
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = reached
    return adjusted
