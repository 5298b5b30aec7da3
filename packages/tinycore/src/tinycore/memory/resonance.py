"""Resonance buffers, an idea of the seed's: r vectors that echo what earlier layers made of the text so far.

    m_l,t = mean of x_l over the tokens of t's document up to t
    w_l,t = sigmoid(W m_l,t + b)   (r)
    R_l,t = decay R_{l-1},t + (1 - decay) w_l,t (outer) m_l,t,   R_0 learned                      before every call l
    x_l,t <- x_l,t + gate P (softmax(x_l,t . R_l,t / sqrt(D)) R_l,t)

Every token has buffers of its own, made of the tokens up to it: the seed takes the mean of the whole row, which shows a token
its future. They travel up the depth and begin anew with each pass; what survives to the next chunk are the sums behind the
means. R is never written out: it is R_0 and the means so far, each with a weight for each buffer, so that a token keeps one
vector a call instead of r. `gate` starts at `inject`; at 0 this is the plain stack. The first call has nothing to hear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.families import MemoryConfig, Scope
from tinycore.linears.dense import Dense
from tinycore.ops.gated_scan import gated_scan


class SumState(NamedTuple):
    """The sum of a stream's document so far, at one call."""

    total: Tensor  # (B, D)


class Echoes(NamedTuple):
    """The means (B, T, D) that calls heard so far, and the weights (B, T, r) with which they stand in the buffers."""

    means: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


class Resonance(nn.Module):
    """See the module's docstring."""

    gating: ClassVar[tuple[str, ...]] = ("diffuse",)
    undecayed: ClassVar[tuple[str, ...]] = ("initial",)

    @dataclass(frozen=True, kw_only=True)
    class Config(MemoryConfig, kind="resonance"):
        buffers: int = field(default=8, metadata={"help": "vectors that reverberate"})
        decay: float = field(default=0.9, metadata={"help": "what is left of them after each call"})
        inject: float = field(default=0.1, metadata={"help": "factor on what is heard, at the start; learned"})

        def __post_init__(self) -> None:
            if self.buffers < 1:
                raise ConfigError(f"buffers: {self.buffers} is not positive")
            if not 0 <= self.decay < 1:
                raise ConfigError(f"decay: {self.decay} is not at least 0 and below 1")

        def check(self, calls: int) -> None:
            if calls < 2:
                raise ConfigError("kind: resonance carries from one call to the next, and this model has a single call")

        def build(self, calls: int, scope: Scope) -> Resonance:
            return Resonance(self, scope)

        def cost(self, scope: Scope, calls: int, length: int) -> Cost:
            dim, buffers, heard = scope.dim, self.buffers, calls - 1
            products = dim**2 + 2 * buffers * dim  # P; W and R_0, the latter for scores
            return Cost(
                parameters=dim**2 + 2 * buffers * dim + buffers + 1,
                flops={"memory": heard * 2.0 * (products + buffers * dim)},
                saved=heard * (4.0 * (5 * dim + 3 * buffers) + 4.0 * (heard + 1) * buffers / 2),
                state=heard * dim,
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.config = config
        self.initial = nn.Parameter(torch.empty(config.buffers, scope.dim))
        nn.init.normal_(self.initial, std=0.02)  # at zero all buffers would be read alike
        self.diffuse = Dense(scope.dim, config.buffers, False, 1.0)
        self.bias = nn.Parameter(torch.zeros(config.buffers))
        self.inject = Dense(scope.dim, scope.dim, False, 1.0)
        self.gate = nn.Parameter(torch.tensor(config.inject))

    def forward(self, index: int, x: Tensor, held: Echoes | None, calls: Calls) -> tuple[Tensor, Echoes | None]:
        if index == 0:
            return x, Echoes((), ())
        assert held is not None
        mean = self._mean(index, x, calls)
        heard = (self.diffuse(mean) + self.bias.to(x.dtype)).sigmoid() * (1 - self.config.decay)
        held = Echoes((*held.means, mean), (*(self.config.decay * old for old in held.weights), heard))
        strength = self.config.decay**index
        initial = strength * self.initial.to(x.dtype)
        scores = x @ initial.t()  # (B, T, r)
        for echo, weight in zip(*held, strict=True):
            scores = scores + (x * echo).sum(-1, keepdim=True) * weight
        share = (scores * x.shape[-1] ** -0.5).softmax(-1)
        read = share @ initial
        for echo, weight in zip(*held, strict=True):
            read = read + (share * weight).sum(-1, keepdim=True) * echo
        return x + self.gate.to(x.dtype) * self.inject(read), held

    def _mean(self, index: int, x: Tensor, calls: Calls) -> Tensor:
        """(B, T, D): the mean of each token's document up to it; anything at padding."""
        ctx, path = calls.ctx, f"memory/{index}"
        past: SumState | None = calls.past(path)
        wide = torch.promote_types(x.dtype, torch.float32)
        forget, value = _steps(ctx, x.to(wide))
        total, last = gated_scan(forget, value, None if past is None else past.total.to(wide))
        calls.keep(path, SumState(last))
        count = (ctx.positions + 1).to(wide)
        return (total / count[..., None]).to(x.dtype)


def _steps(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """The gates and inputs of a running sum that begins anew with each document and passes padding by."""
    forget = (ctx.positions != 0).to(x.dtype)[..., None]
    valid = ctx.valid
    if valid is not None:
        forget = torch.where(valid[..., None], forget, 1)
        x = torch.where(valid[..., None], x, 0)
    return forget.expand_as(x).contiguous(), x.contiguous()
