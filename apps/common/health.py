"""What the loss of each step says about a run: steps that came to nothing, and losses far above their neighbours'.

    skipped     a loss or gradient was not finite, and the optimizer step did not take place
    spike       loss > median + deviations x spread, over the losses of the last `window` steps (this one left out), where
                spread = 1.4826 x median |loss - median|, a standard deviation that outliers do not move, and at least 1 %
                of the median

A spike is the way up: until the loss is back below the line, it is the same one. What is kept here travels with the
checkpoint, so that a resumed run finds the spikes of an uninterrupted one.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any

from apps.common.errors import RunError
from apps.common.recipe import SpikeConfig

NORMAL = 1.4826  # standard deviations in a median absolute deviation of normal values
LEAST_SPREAD = 0.01  # of the median: a loss that hardly moves has no spikes of a thousandth


@dataclass(frozen=True)
class Spike:
    """A loss, and the median of those before it."""

    loss: float
    median: float


class Health:
    """Of one run, the same in all processes. skipped: steps that came to nothing so far; in_a_row: of them, the latest
    without one that did not."""

    def __init__(self, config: SpikeConfig, saved: dict[str, Any]) -> None:
        """`saved`: what `row` gave, or {}. Raises RunError for anything else."""
        self.config = config
        try:
            self.skipped, self.in_a_row = int(saved.get("skipped", 0)), int(saved.get("in_a_row", 0))
            self.inside = bool(saved.get("inside", False))
            self.losses = deque((float(loss) for loss in saved.get("losses", [])), maxlen=config.window)
        except (TypeError, ValueError):
            raise RunError("trainer.json: health is not what a run writes there; take an older checkpoint") from None

    def skip(self) -> None:
        """Count a step that came to nothing."""
        self.skipped += 1
        self.in_a_row += 1

    def learned(self, loss: float) -> Spike | None:
        """Take in the loss of a step that took place; the spike that begins with it, if one does."""
        self.in_a_row = 0
        spike = None
        if len(self.losses) >= max(2, self.config.window // 2):
            median = statistics.median(self.losses)
            spread = NORMAL * statistics.median(abs(each - median) for each in self.losses)
            above = loss > median + self.config.deviations * max(spread, LEAST_SPREAD * abs(median))
            spike = Spike(loss, median) if above and not self.inside else None
            self.inside = above
        self.losses.append(loss)
        return spike

    def row(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return {
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "inside": self.inside,
            "losses": list(self.losses),
        }
