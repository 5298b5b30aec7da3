"""FANformer's attention-Fourier input (ATF, arXiv 2502.21309): periodic features before queries, keys and values.

    X_F = [cos(W_p X) | sin(W_p X) | W_g X + b_g]      X, X_F (B, T, D); W_p (p D, D), W_g (D - 2 p D, D)

The share p counts for the cosines and once more for the sines (0.125 in the paper: a quarter of X_F is periodic), and
W_g's part has no activation, as in the authors' code. Per position, so nothing about it can see ahead. CoLA_FAN, which
puts such features into the projections themselves, is another thing: a linear.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import BranchConfig, Scope

PROJECTIONS = ("fan_p", "fan_g")


def periodic_channels(share: float, dim: int) -> int:
    """Cosines of X_F, and sines: the authors round the share down."""
    return int(share * dim)


def fan_cost(config: BranchConfig, share: float, scope: Scope, component: str) -> Cost:
    """What `FanInput` costs."""
    dim, periodic = scope.dim, periodic_channels(share, scope.dim)
    rest = dim - 2 * periodic
    return (
        config.projection(scope, "fan_p").cost(dim, periodic, component)
        + config.projection(scope, "fan_g").cost(dim, rest, component)
        # the input is kept for both products, W_p X for its cosine and sine
        + Cost(parameters=rest, saved=float(scope.product_bytes * (dim + periodic)))
    )


class FanInput(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    def __init__(self, config: BranchConfig, share: float, scope: Scope) -> None:
        super().__init__()
        periodic = periodic_channels(share, scope.dim)
        rest = scope.dim - 2 * periodic
        self.p = config.projection(scope, "fan_p").build(scope.dim, periodic)
        self.g = config.projection(scope, "fan_g").build(scope.dim, rest)
        self.bias = nn.Parameter(torch.zeros(rest))

    def forward(self, x: Tensor) -> Tensor:
        angles, rest = self.p(x), self.g(x)
        return torch.cat([angles.cos(), angles.sin(), rest + self.bias.to(rest.dtype)], dim=-1)
