"""Mixture of experts as Jamba has it (arXiv 2403.19887): a token is computed by the k experts its router likes best.

    p = softmax(W_r x) (B, T, E);  y = sum over the k largest p_e of p_e SwiGLU_e(x)

The weights p_e are not divided by their sum, as in Jamba and unlike Mixtral (2401.04088): so the router learns from the
next-token loss with k = 1 too. With E = 1 this is the plain feed-forward. Routing is per token, without capacity
(`dispatch`): no token's output depends on another's, so it is causal as any feed-forward is. The router computes in at
least float32, starts with standard deviation .02, and is kept even by `balance` times the balance loss (`balance`), a
mean over the layers that have one. Of E experts' parameters a token uses k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.embed.table import INITIAL_STD
from tinycore.families import Aux, Carry, FeedForwardConfig, LocalState, Scope
from tinycore.ffns.balance import balance
from tinycore.ffns.dispatch import dispatch
from tinycore.ffns.swiglu import SwiGLU
from tinycore.linears.dense import Dense
from tinycore.ops.precision import without_autocast


class MixtureOfExperts(nn.Module):
    """(B, T, D) -> (B, T, D) through `active` of `experts` feed-forwards."""

    gating: ClassVar[tuple[str, ...]] = ("router",)

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForwardConfig, kind="moe"):
        exempt: ClassVar[Mapping[str, str]] = {
            "float32": "top-k is a hard decision: rounding flips it where two experts are nearly equal",
            "flops": "routed by the values of tokens, of which the meta device has none; counted on real ones in test_moe",
            "compiled": "the number of an expert's tokens depends on the data",
        }
        projections: ClassVar[tuple[str, ...]] = SwiGLU.Config.projections
        experts: int = field(metadata={"help": "feed-forwards to choose from"})
        active: int = field(default=2, metadata={"help": "experts that compute a token"})
        hidden: int | None = field(
            default=None, metadata={"help": "channels of an expert; null = 8/3 dim rounded up to a multiple of 64"}
        )
        balance: float = field(default=1e-2, metadata={"help": "weight of the balance loss; 0 = none"})

        def __post_init__(self) -> None:
            if self.experts < 1:
                raise ConfigError(f"experts: {self.experts} is not positive")
            if not 1 <= self.active <= self.experts:
                raise ConfigError(f"active: {self.active} is not between 1 and the number of experts {self.experts}")
            if self.hidden is not None and self.hidden < 1:
                raise ConfigError(f"hidden: {self.hidden} is not positive")
            if self.balance < 0:
                raise ConfigError(f"balance: {self.balance} is negative")

        @property
        def expert(self) -> SwiGLU.Config:
            """The config of each expert."""
            return SwiGLU.Config(hidden=self.hidden, linear=self.linear)

        def build(self, scope: Scope) -> MixtureOfExperts:
            return MixtureOfExperts(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            return routed_cost(self.expert.cost(scope, length), self.experts, self.active, scope, length) + Cost(
                parameters=scope.dim * self.experts,
                flops={"router": 2.0 * scope.dim * self.experts},
                saved=float(4 * scope.dim + 4 * self.experts),  # the router's input in float32, its probabilities
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.active, self.balance = config.active, config.balance
        self.names = tuple(map(str, range(config.experts)))
        self.router = Dense(scope.dim, config.experts, bias=False, gain=INITIAL_STD * scope.dim**0.5)
        self.experts = nn.ModuleList(config.expert.build(scope) for _ in self.names)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        tokens = x.flatten(0, 1)  # (N, D)
        with without_autocast(x):
            wide = torch.promote_types(x.dtype, torch.float32)
            probabilities = F.softmax(F.linear(tokens.to(wide), self.router.weight), -1)
        weights, chosen = probabilities.topk(self.active, -1)
        experts: Any = self.experts
        y = dispatch(tokens, chosen, weights, [expert.transform for expert in experts]).view_as(x)
        valid = None if ctx.valid is None else ctx.valid.flatten()
        return y, carry, state, balance(probabilities, chosen, valid, self.names, self.balance)


def routed_cost(expert: Cost, experts: int, active: int, scope: Scope, length: int) -> Cost:
    """The cost of `experts` experts of which `active` compute each token, without their router."""
    each, tokens = scope.product_bytes, scope.rows * length
    return replace(
        expert.called(active),
        parameters=experts * expert.parameters,
        held=experts * expert.held,
        products=experts * expert.products,
        # beside what the experts keep: their results, weights and choice, and two permutations
        saved=active * (expert.saved + each * scope.dim + 4 + 3 * 8),
        # tokens spread evenly; gradients of results and of the experts' inputs
        transient=active * (expert.transient // experts + 2 * tokens * each * scope.dim),
    )
