"""Learned scalars on the stream and a way back to the embedding: before call i, x <- lambda_i x + mu_i x_0.

x_0 (B, T, D) is the embedding, lambda starts at 1 and mu at 0, so that a fresh model is the plain one (modded-nanogpt; a
pair for each call, none after the last). There x_0 is RMS-normalised first; here it is the embedding as it is, and `scale`
of the embedding sets its size. Later versions of modded-nanogpt also scale what each sublayer adds: `branches` learns that
factor, x + s y, s = 1 at first, a scalar for each sublayer of each module. Position by position, hence causal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import ResidualConfig, Scope
from tinycore.residual.plain import PlainResidual


class ScaledResidual(nn.Module):
    """(x, y) -> x + s y, s a learned scalar."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ResidualConfig, kind="scaled"):
        joins_calls: ClassVar[bool] = True
        branches: bool = field(default=False, metadata={"help": "learn a factor on what each sublayer adds as well"})

        def build(self, scope: Scope) -> nn.Module:
            return ScaledResidual() if self.branches else PlainResidual()

        def build_stream(self, scope: Scope) -> ScaledStream:
            return ScaledStream(scope.calls)

        def cost(self, scope: Scope) -> Cost:
            # the branch's output, of which the factor's gradient is made
            return Cost(parameters=1, saved=float(scope.product_bytes * scope.dim)) if self.branches else Cost()

        def stream_cost(self, scope: Scope, length: int) -> Cost:
            # what each call gave, beside the scaled stream that the norm after it keeps
            return Cost(parameters=2 * scope.calls, saved=4.0 * scope.dim * scope.calls)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.scale * y


class ScaledStream(nn.Module):
    """(index, x, kept) -> (x, kept), x (B, T, D); kept holds x_0. `weight` (calls, 2) are lambda and mu."""

    undecayed = ("weight",)

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.0]]).repeat(calls, 1))

    def forward(self, index: int, x: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        (embedding,) = kept or (x,)
        if index < len(self.weight):
            stream, back = self.weight[index].unbind()
            x = torch.addcmul(x * stream, embedding, back)
        return x, (embedding,)
