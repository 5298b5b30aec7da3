"""Which of several things nobody beats in everything: the Pareto front, where less is better in every coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other is at least as good as in all coordinates and better in one, in the order given.

    Equal points are all on it or all off. Raises ValueError for points of different lengths and numbers that are NaN.
    """
    if len({len(point) for point in points}) > 1:
        raise ValueError("front: points of different lengths")
    if any(math.isnan(value) for point in points for value in point):
        raise ValueError("front: a coordinate is not a number")
    return [
        index
        for index, point in enumerate(points)
        if not any(
            all(a <= b for a, b in zip(other, point, strict=True)) and tuple(other) != tuple(point) for other in points
        )
    ]
