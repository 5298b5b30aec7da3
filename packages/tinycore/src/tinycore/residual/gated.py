"""Gated residual: x + sigmoid(g) * y, g (D,) learned for each sublayer, 0 at first (a gate of one half).

Position by position, hence causal. A large `start` opens the gate: sigmoid(40) is 1 to double precision, which is the
plain residual. As the seed writes it; a shared layer has one pair of gates, however often it is called.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import ResidualConfig, Scope


class GatedResidual(nn.Module):
    """(x, y) -> x + sigmoid(g) * y, all (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ResidualConfig, kind="gated"):
        start: float = field(default=0.0, metadata={"help": "g at first; 0 = half open, 40 = open"})

        def build(self, scope: Scope) -> GatedResidual:
            return GatedResidual(scope.dim, self.start)

        def cost(self, scope: Scope) -> Cost:
            # the branch's output, of which the gate's gradient is made
            return Cost(parameters=scope.dim, saved=float(scope.product_bytes * scope.dim))

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.gate.sigmoid() * y
