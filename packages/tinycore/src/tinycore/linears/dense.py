"""Dense linear: y = x W^T (+ b), W (outputs, inputs) drawn from N(0, gain^2 / inputs)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from tinycore.count import Cost
from tinycore.families import LinearConfig


class Dense(nn.Linear):
    """(..., inputs) -> (..., outputs)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LinearConfig, kind="dense"):
        bias: bool = field(default=False, metadata={"help": "add a bias per output"})

        def build(self, inputs: int, outputs: int, gain: float = 1.0) -> Dense:
            return Dense(inputs, outputs, self.bias, gain)

        def cost(self, inputs: int, outputs: int, component: str) -> Cost:
            return Cost(
                parameters=inputs * outputs + (outputs if self.bias else 0),
                flops={component: 2.0 * inputs * outputs},
                products=inputs * outputs,
            )

    def __init__(self, inputs: int, outputs: int, bias: bool, gain: float) -> None:
        self.gain = gain
        super().__init__(inputs, outputs, bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.gain * self.in_features**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
