"""Loss scaling for fp16 (arXiv 1710.03740): gradients that would round to zero are computed 2^k times as large.

    backward of scale x loss;  gradient / scale;  a gradient that is not finite: the step is skipped, the scale halved;
    PERIOD steps without one: the scale doubled

A scale that was too large is no failure of the run: only what is not finite at scale 1, or with a loss that is not, counts
as one. The scale is a power of two, so that scaling rounds nothing, and travels with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apps.common.errors import RunError

FIRST = 2.0**16
PERIOD = 2000  # steps


class LossScale:
    """The same in all processes. value: the scale now, always 1 unless `precision` is fp16."""

    def __init__(self, precision: str, saved: dict[str, Any]) -> None:
        """`saved`: what `row` gave, or {}. Raises RunError for anything else."""
        self.active = precision == "fp16"
        value, steps = saved.get("value", FIRST), saved.get("steps", 0)
        if type(value) not in (int, float) or not value >= 1 or type(steps) is not int:
            raise RunError("trainer.json: loss_scale is not what a run writes there; take an older checkpoint")
        self.value, self.steps = (float(value), steps) if self.active else (1.0, 0)

    def scaled(self, loss: Tensor) -> Tensor:
        """What the backward pass begins with."""
        return loss * self.value if self.active else loss

    def unscale(self, parameters: Sequence[Tensor]) -> None:
        """Have the gradients be those of the loss."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.active and gradients:
            torch._foreach_mul_(gradients, 1 / self.value)

    def held(self) -> None:
        """A step took place at this scale."""
        self.steps += self.active
        if self.steps == PERIOD:
            self.value, self.steps = 2 * self.value, 0

    def overflowed(self) -> bool:
        """A gradient was not finite: whether that may be the scale's doing, which is halved then."""
        if self.value == 1:
            return False
        self.value, self.steps = max(1.0, self.value / 2), 0
        return True

    def row(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return {"value": self.value, "steps": self.steps} if self.active else {}
