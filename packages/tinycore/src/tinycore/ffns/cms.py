"""Continuum memory system (Nested Learning, arXiv 2512.24695): feed-forwards that learn at different speeds.

    chain:     y_1 = MLP_1(x),  y_l = y_{l-1} + MLP_l(norm(y_{l-1})),  y = y_k       (equations 70-74)
    branches:  y = s MLP_1(x) + (1 - s) MLP_2(x),  s = sigmoid(w . x + b)

x (B, T, D), every MLP a SwiGLU of `hidden` channels, s a number per token. Level l is updated once every `periods[l]`
optimizer steps, with the mean of the gradients of these steps (`optim.periodic`): a level with period 1 is the working
memory, one with period 64 the slow one. The periods are honoured while training; nothing changes at inference, and with
one level this is the plain feed-forward. Per token, hence causal.

The paper writes the chain as MLP_k(... MLP_1(x)), normalisation left out. Bare, it vanishes, since a SwiGLU of small
inputs is quadratic in them; with an RMSNorm between levels it trains, and with a residual around each later level far
better (demo recipe, three levels of 128 channels, 120 steps: 2.63 and 2.25 bits per byte), so ours has both. A norm
belongs to the level it feeds. `branches` is the seed's form: its slow branch was frozen rather than slow, and its gate
began at b = -2, which favours the slow branch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, FeedForwardConfig, LocalState, Scope
from tinycore.ffns.swiglu import SwiGLU
from tinycore.linears.dense import Dense
from tinycore.norms.rms import RMSNorm
from tinycore.ops.precision import product_dtype


class ContinuumMemory(nn.Module):
    """(B, T, D) -> (B, T, D) through one feed-forward for each of `periods`."""

    gating: ClassVar[tuple[str, ...]] = ("gate",)

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForwardConfig, kind="cms"):
        projections: ClassVar[tuple[str, ...]] = SwiGLU.Config.projections
        mode: Literal["chain", "branches"] = field(
            default="chain", metadata={"help": "levels one after another, or two beside each other"}
        )
        periods: tuple[int, ...] = field(
            default=(1, 8, 64), metadata={"help": "optimizer steps between updates of each level, in order"}
        )
        hidden: int | None = field(
            default=None, metadata={"help": "channels of a level; null = 8/3 dim rounded up to a multiple of 64"}
        )
        gate_bias: float = field(
            default=0.0, metadata={"help": "first bias of the branches' gate; below 0 favours the second"}
        )

        def __post_init__(self) -> None:
            if not self.periods or min(self.periods) < 1:
                raise ConfigError(f"periods: {list(self.periods)} are not one or more positive numbers of steps")
            if self.mode == "branches" and len(self.periods) != 2:
                raise ConfigError(f"periods: branches are two, fast and slow; got {len(self.periods)} periods")
            if self.hidden is not None and self.hidden < 1:
                raise ConfigError(f"hidden: {self.hidden} is not positive")

        @property
        def level(self) -> SwiGLU.Config:
            """The config of each level's feed-forward."""
            return SwiGLU.Config(hidden=self.hidden, linear=self.linear)

        def normed(self, index: int) -> bool:
            return self.mode == "chain" and index > 0

        def build(self, scope: Scope) -> ContinuumMemory:
            return ContinuumMemory(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            each, one = scope.product_bytes, self.level.cost(scope, length)
            total = Cost()
            for index, period in enumerate(self.periods):
                norm = Cost(parameters=scope.dim, saved=float(each * scope.dim + 4)) if self.normed(index) else Cost()
                part = one + norm
                total += replace(part, delayed=part.parameters if period > 1 else 0)
            if self.mode == "branches":
                # both read one input; their difference is kept, and s
                shared = each * scope.dim
                total = replace(total, saved=total.saved - shared) + Cost(
                    parameters=scope.dim + 1,
                    flops={"feed_forward": 2.0 * scope.dim},
                    saved=float(each * scope.dim + each),
                    products=scope.dim,
                )
            return total

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.mode = config.mode
        self.levels = nn.ModuleList(
            Level(config.level, scope, period, config.normed(index)) for index, period in enumerate(config.periods)
        )
        self.gate = None
        if config.mode == "branches":
            self.gate = Dense(scope.dim, 1, bias=True, gain=1.0)
            nn.init.constant_(self.gate.bias, config.gate_bias)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        levels: Any = self.levels
        if self.gate is None:
            first, *later = levels
            y = first(x)
            for level in later:
                y = y + level(y)
        else:
            fast, slow = (level(x) for level in levels)
            y = slow + self.gate(x).sigmoid() * (fast - slow)
        return y, carry, state, {}


class Level(nn.Module):
    """A feed-forward (B, T, D) -> (B, T, D), after a norm where it reads another one, updated every `update_period` steps."""

    def __init__(self, config: SwiGLU.Config, scope: Scope, period: int, normed: bool) -> None:
        super().__init__()
        self.update_period = period
        self.norm = RMSNorm(scope.dim) if normed else None
        self.mlp = config.build(scope)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp.transform(x if self.norm is None else self.norm(x, product_dtype(x)))
