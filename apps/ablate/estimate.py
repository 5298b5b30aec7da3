"""How long a cell will take, by those that have been trained: for the time that is left, and for `--hours`.

Of the same variant the slowest so far, in proportion to its steps; otherwise the median variant's. A short cell spends most
of its time starting, so that a long one is taken for longer than it is: `--hours` would rather stop early than late.
"""

from __future__ import annotations

import statistics
from collections import defaultdict


class Estimate:
    """Seconds of cells by variant and steps."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)  # a step

    def observe(self, variant: str, steps: int, seconds: float) -> None:
        """A cell of so many steps took so long, its start and end included."""
        self._seconds[variant].append(seconds / steps)

    def seconds(self, variant: str, steps: int) -> float | None:
        """How long a cell will take; None before the first has been seen."""
        if not self._seconds:
            return None
        if variant in self._seconds:
            return steps * max(self._seconds[variant])
        return steps * statistics.median(max(found) for found in self._seconds.values())
