"""Random choices that are the same in every Python version.

Python guarantees across versions only that `Random.random()` yields the same numbers for the same integer seed; the
algorithms of `choice`, `randrange`, `shuffle` and `sample` may change (and have). So everything here is built from
`random()`, and the seed is an integer made by sha256 from the generator's name and the user's seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Chance:
    """One stream of choices for the generator `name`, independent of the streams of other names and seeds."""

    def __init__(self, name: str, seed: int) -> None:
        digest = hashlib.sha256(f"{name} {seed}".encode()).digest()
        self.random = random.Random(int.from_bytes(digest[:16], "big")).random

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1; count is at most 2^20, for which the product cannot round up."""
        return int(self.random() * count)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def choose(self, items: Sequence[Item]) -> Item:
        """One of the items, each with the same probability."""
        return items[int(self.random() * len(items))]

    def distinct(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different ones of the items, in random order."""
        left = list(items)
        return [left.pop(int(self.random() * len(left))) for _ in range(count)]

    def happens(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability
