"""CoLA_FAN: CoLA with periodic channels, an idea of the seed after CoLA (arXiv 2502.10940) and FANformer (2502.21309).

    u = B_p drop(silu(A_p x))              (..., P)           P = floor(p outputs)
    n = B drop(silu(A x)) + b              (..., outputs - 2 P)
    y = cos(u), sin(u) and n, interleaved  (..., outputs)

A and A_p are (rank, inputs); `p` is the share of the outputs that are cosines, and of those that are sines, before rounding
down; at p = 0 it is CoLA. Per position, so causal. 2 inputs rank + rank P + (rank + 1)(outputs - 2 P) parameters.

The seed puts all cosines first, then all sines, which makes the first attention head almost all cosine. Here a pair
(cos u_j, sin u_j) stands after every 1 / P of the other channels, so any run of channels, such as a head, holds the
share p of each, to within one. `dropout` acts on the rank channels, in training only (the seed found .09 best of five).
Cosines and sines do not shrink with `gain`: made for q, k and v, it is allowed elsewhere, but an output projection made
of it adds channels near 1 to the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import LinearConfig
from tinycore.linears.cola import factor, rank_of
from tinycore.recompute import low_rank_product


class CoLAFAN(nn.Module):
    """(..., inputs) -> (..., outputs)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LinearConfig, kind="cola_fan"):
        rank: int | None = field(
            default=None, metadata={"help": "channels between the factors; null = a quarter of the smaller side"}
        )
        p: float = field(
            default=0.15, metadata={"help": "share of outputs that are cosines, and of those that are sines"}
        )
        dropout: float = field(default=0.09, metadata={"help": "share of rank channels that are dropped in training"})
        bias: bool = field(default=False, metadata={"help": "add a bias per output that is not periodic"})

        def __post_init__(self) -> None:
            if self.rank is not None and self.rank < 1:
                raise ConfigError(f"rank: {self.rank} is not positive")
            if not 0 <= self.p < 0.5:
                raise ConfigError(f"p: {self.p} is not at least 0 and below 0.5")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"dropout: {self.dropout} is not at least 0 and below 1")

        def build(self, inputs: int, outputs: int, gain: float = 1.0) -> CoLAFAN:
            return CoLAFAN(inputs, outputs, self, gain)

        def cost(self, inputs: int, outputs: int, component: str) -> Cost:
            rank, pairs = rank_of(self.rank, inputs, outputs), int(self.p * outputs)
            branches = 2 if pairs else 1
            size = rank * (branches * inputs + outputs - pairs)
            # of each branch: before the activation and what B reads; if that is dropped, the noise
            kept = branches * rank * (3 if self.dropout else 2) + pairs
            return Cost(
                parameters=size + (outputs - 2 * pairs if self.bias else 0),
                flops={component: 2.0 * size},
                saved_products=kept,
                low_rank=branches * rank,
                products=size,
            )

    def __init__(self, inputs: int, outputs: int, config: Config, gain: float) -> None:
        super().__init__()
        rank, self.pairs = rank_of(config.rank, inputs, outputs), int(config.p * outputs)
        self.in_features, self.out_features, self.dropout = inputs, outputs, config.dropout
        plain = outputs - 2 * self.pairs
        self.a = factor(rank, inputs, outputs, rank, inputs)
        self.b = factor(rank, inputs, outputs, plain, rank, gain)
        self.bias = nn.Parameter(torch.zeros(plain)) if config.bias else None
        if self.pairs:
            self.periodic_a = factor(rank, inputs, outputs, rank, inputs)
            self.periodic_b = factor(rank, inputs, outputs, self.pairs, rank)

    def forward(self, x: Tensor) -> Tensor:
        plain = F.linear(self._opened(x, self.a), self.b, self.bias)
        if not self.pairs:
            return plain
        angles = F.linear(self._opened(x, self.periodic_a), self.periodic_b)
        return _Interleave.apply(torch.cat([angles.cos(), angles.sin(), plain], -1), self.pairs)

    def _opened(self, x: Tensor, a: Tensor) -> Tensor:
        return F.dropout(F.silu(low_rank_product(x, a)), self.dropout, self.training)


def places(pairs: int, outputs: int, device: torch.device) -> Tensor:
    """Where the cosines, the sines and the other channels, in this order, stand among the outputs: (outputs,) int64."""
    plain = outputs - 2 * pairs
    pair = torch.arange(pairs, device=device)
    before = (2 * pair + 1) * plain // (2 * pairs)  # other channels before pair j: j and a half of P equal runs
    other = torch.arange(plain, device=device)
    passed = torch.searchsorted(before, other, right=True)  # pairs before other channel k
    return torch.cat([2 * pair + before, 2 * pair + before + 1, other + 2 * passed])


class _Interleave(torch.autograd.Function):
    """Channels (..., outputs) given as cosines, sines, others to their `places`: a selection either way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: int) -> Tensor:
        ctx.pairs = pairs
        return x.index_select(-1, places(pairs, x.shape[-1], x.device).argsort())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(-1, places(ctx.pairs, grad.shape[-1], grad.device)), None
