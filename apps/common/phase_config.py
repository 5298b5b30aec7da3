"""Schedules of a step's rows as a recipe writes them: what holds up to a share of the steps, before what holds at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from apps.common.config_fields import described, positive
from tinycore.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class BatchPhase:
    """A smaller batch at the beginning."""

    until: float = described("share of the steps that it ends at")
    batch: int = described("sequences per optimizer step until then, over all processes")

    def __post_init__(self) -> None:
        positive(self, "batch")


@dataclass(frozen=True, kw_only=True)
class LengthPhase:
    """Shorter rows at the beginning."""

    until: float = described("share of the steps that it ends at")
    length: int = described("tokens that each row is cut into pieces of until then")

    def __post_init__(self) -> None:
        positive(self, "length")


def grows(name: str, entries: Sequence[BatchPhase | LengthPhase], sizes: Sequence[int], last: int, end: str) -> None:
    """Raises ConfigError unless shares and sizes grow from entry to entry, and the sizes on to `last`, which `end` names."""
    shares = [0.0, *(entry.until for entry in entries), 1.0]
    if any(later <= earlier for earlier, later in pairwise(shares)):
        raise ConfigError(f"{name}: the shares {shares[1:-1]} do not grow from above 0 to below 1")
    whole = [*sizes, last]
    if any(later <= earlier for earlier, later in pairwise(whole)):
        raise ConfigError(f"{name}: {list(sizes)} does not grow to {end}, {last}, which comes last")
