"""Dropout of branch outputs (arXiv 1207.0580), with a rate that may grow with the layer's place in the stack.

    y <- y * mask / (1 - r_i),  mask ~ Bernoulli(1 - r_i) for each element,  r_i = rate * (1 + growth * i),  i = 0, 1, ...

In training only; without a rate there is no operation and no draw. The seed that raises the rate with depth passes
depth 1 to nearly every layer, so that its rates hardly grow; here i is the module's place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost

if TYPE_CHECKING:
    from tinycore.families import Scope


@dataclass(frozen=True, kw_only=True)
class DropoutConfig:
    """What share of a branch's output is dropped while training."""

    rate: float = field(default=0.0, metadata={"help": "share of a branch's output dropped in training, in layer 0"})
    growth: float = field(default=0.0, metadata={"help": "layer i drops rate x (1 + growth x i)"})

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ConfigError(f"rate: {self.rate} is not at least 0 and below 1")
        if self.growth < 0:
            raise ConfigError(f"growth: {self.growth} is negative; rates do not fall with depth")

    def of(self, layer: int) -> float:
        """The rate of layer `layer` = 0, 1, ..."""
        return self.rate * (1 + self.growth * layer)

    def check(self, layers: int) -> None:
        """Raise ConfigError if a stack of `layers` layers has one that drops everything."""
        last = self.of(layers - 1)
        if last >= 1:
            raise ConfigError(
                f"dropout.growth: layer {layers - 1} would drop {last:.3g}; keep rate x (1 + growth x i) below 1"
            )

    def build(self, layer: int) -> Dropout | None:
        rate = self.of(layer)
        return Dropout(rate) if rate else None

    def cost(self, scope: Scope) -> Cost:
        """Of one branch: its mask, a byte an element."""
        return Cost(saved=float(scope.dim) if self.rate else 0.0)


class Dropout(nn.Module):
    """(B, T, D) -> (B, T, D). Every call draws a mask of its own from the device's generator."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        # a tensor, since a compiled layer would be compiled again for every other number; neither parameter nor buffer:
        # always on the CPU, where an operation of any device takes a single number from, and never rounded to the weights'
        # precision
        self.kept = torch.tensor(1 - rate, dtype=torch.float64, device="cpu")

    def forward(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        mask = torch.rand(y.shape, device=y.device) < self.kept
        return torch.where(mask, y / self.kept, 0.0)

    def extra_repr(self) -> str:
        return f"rate={1 - float(self.kept):.6g}"
