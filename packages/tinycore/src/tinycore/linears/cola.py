"""CoLA, the low-rank auto-encoder in place of a linear (arXiv 2502.10940): y = B silu(A x) (+ b).

    A (rank, inputs), B (outputs, rank);  x (..., inputs) -> (..., outputs);  rank (inputs + outputs) parameters

Entries of A and B are drawn from N(0, 1) rank^-1/4 (inputs + outputs)^-1/4, as in the authors' code, so that those of B A
have standard deviation (inputs + outputs)^-1/2; `gain` scales B. `activation: none` is the plain low-rank linear B A x.
Per position, so causal. The products A x are all that has to be kept to make the rest again: see `tinycore.recompute`.

The paper's ranks: a quarter of the width at 60M, 350M and 1B, a third at 130M, the same for every projection; our default is
a quarter of the smaller side. Where we differ from the seed: SiLU (it has GELU), the paper's initialisation, A and B of
every projection its own (it has one A for gate and up, and rank 512 on the way down from 2,048).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import LinearConfig
from tinycore.recompute import low_rank_product

SHARE = 4  # the default rank is the smaller side divided by this


def rank_of(rank: int | None, inputs: int, outputs: int) -> int:
    """The rank, where it is null a quarter of the smaller side and at least 1."""
    return rank or max(1, min(inputs, outputs) // SHARE)


def factor(rank: int, inputs: int, outputs: int, rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
    """One of the two factors (rows, columns) of a linear, with the paper's initialisation times `gain`."""
    std = gain * rank**-0.25 * (inputs + outputs) ** -0.25
    return nn.Parameter(nn.init.normal_(torch.empty(rows, columns), std=std))


class CoLA(nn.Module):
    """(..., inputs) -> (..., outputs)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LinearConfig, kind="cola"):
        rank: int | None = field(
            default=None, metadata={"help": "channels between the factors; null = a quarter of the smaller side"}
        )
        activation: Literal["silu", "none"] = field(default="silu", metadata={"help": "between the factors"})
        bias: bool = field(default=False, metadata={"help": "add a bias per output"})

        def __post_init__(self) -> None:
            if self.rank is not None and self.rank < 1:
                raise ConfigError(f"rank: {self.rank} is not positive")

        def build(self, inputs: int, outputs: int, gain: float = 1.0) -> CoLA:
            return CoLA(inputs, outputs, self, gain)

        def cost(self, inputs: int, outputs: int, component: str) -> Cost:
            rank = rank_of(self.rank, inputs, outputs)
            size = rank * (inputs + outputs)
            return Cost(
                parameters=size + (outputs if self.bias else 0),
                flops={component: 2.0 * size},
                saved_products=rank * (1 if self.activation == "none" else 2),  # before and after the activation
                low_rank=rank,
                products=size,
            )

    def __init__(self, inputs: int, outputs: int, config: Config, gain: float) -> None:
        super().__init__()
        rank = rank_of(config.rank, inputs, outputs)
        self.in_features, self.out_features, self.activation = inputs, outputs, config.activation
        self.a = factor(rank, inputs, outputs, rank, inputs)
        self.b = factor(rank, inputs, outputs, outputs, rank, gain)
        self.bias = nn.Parameter(torch.zeros(outputs)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        z = low_rank_product(x, self.a)
        return F.linear(F.silu(z) if self.activation == "silu" else z, self.b, self.bias)
