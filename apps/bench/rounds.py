"""Several ways of doing the same work, timed in turn, so that a disturbed moment of the machine falls on all of them.

A ratio is taken within each round and its median reported with the smallest and largest: what the machine did between
rounds cancels, what it did within one shows as spread.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of `n` figures."""

    median: float
    least: float
    most: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def shown(self, form: str = ".2f") -> str:
        """`median (least to most)`."""
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


def spread(figures: list[float]) -> Spread:
    """The spread of at least one figure."""
    return Spread(statistics.median(figures), min(figures), max(figures), len(figures))


def alternate(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds of each call in each of `rounds` rounds, after `warm_up` rounds that are not counted.

    Every second round goes through the calls backwards. `tell` is given a line of progress after each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_up, rounds):
        names = list(calls) if number % 2 == 0 else list(calls)[::-1]
        for name in names:
            gc.collect()
            start = time.perf_counter()
            calls[name]()
            spent = time.perf_counter() - start
            if number >= 0:
                seconds[name].append(spent)
        tell(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
    return seconds


def ratio(slower: list[float], faster: list[float]) -> Spread:
    """How many times the seconds of `faster` fit into those of `slower`, round by round."""
    return spread([a / b for a, b in zip(slower, faster, strict=True)])
