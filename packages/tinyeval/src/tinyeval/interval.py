"""The 95 % interval of a result's score, for tables and pictures: Wilson's where items are right or wrong, else Student's."""

from __future__ import annotations

from tinyeval.result import Result
from tinyeval.statistics import mean_estimate, proportion_estimate


def interval(result: Result) -> tuple[float, float, float]:
    """Mean, low and high of a score between 0 and 1, cut off there. Raises ValueError for a result without records."""
    values = [record.scores[result.metric] for record in result.records]
    if not values:
        raise ValueError(f"interval: {result.task} has no record")
    if set(values) <= {0.0, 1.0}:
        found = proportion_estimate(round(sum(values)), len(values))
    else:
        found = mean_estimate(values)
    return found.mean, max(found.low, 0.0), min(found.high, 1.0)
