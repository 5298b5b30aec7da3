"""Attention budget: every token begins with a sum to spend, calls cost, and who has spent it stays as it is.

    cost_l = sigmoid(w_l . norm(x_l) + b_l);   rest_l = clamp(b_0 - sum over j < l of cost_j, 0, 1)
    x_{l+1} = x_l + rest_l (layer_l(x_l) - x_l)

An idea of the seed's, whose code writes into an expanded parameter, flattens rows with a mask and gives the budget no gradient.
Here the last part of a budget buys a part of a call, so that b_0, w and b are learned through rest_l, and training and use
compute the same. A token without budget is left alone exactly; later tokens still read its keys and values, and where no
token of a chunk has any left, layers compute no more than those. `penalty` times the mean share of a call that a token pays
for, rest_l averaged over calls, is part of the loss. One position at a time, so causal with causal mixers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.depth.steps import anyone, counted
from tinycore.families import LOSS, CallSite, Carry, RoutingConfig, Scope, add_aux
from tinycore.ops.rms_norm import EPSILON, rms_norm
from tinycore.routing.router import Readout, Routed, Router


@dataclass
class _Spending:
    """What tokens (B, T) have left, and what they paid for so far, in calls."""

    left: Tensor
    paid: Tensor


class Budget(Router):
    """See the module's docstring."""

    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    @dataclass(frozen=True, kw_only=True)
    class Config(RoutingConfig, kind="budget"):
        budget: float | None = field(
            default=None, metadata={"help": "b_0 at the start, in calls at cost 1; null = half of the calls"}
        )
        penalty: float = field(default=0.01, metadata={"help": "weight of the share of calls paid for, in the loss"})

        def __post_init__(self) -> None:
            if self.budget is not None and not self.budget > 0:
                raise ConfigError(f"budget: {self.budget} is not positive")
            if self.penalty < 0:
                raise ConfigError(f"penalty: {self.penalty} is negative")

        def build(self, sites: Sequence[CallSite], scope: Scope) -> Budget:
            return Budget(self, len(sites), scope)

        def cost(self, scope: Scope, calls: int) -> Cost:
            return Cost(parameters=(calls - 1) * (scope.dim + 1) + 1, saved=4.0 * calls * (2 * scope.dim + 4))

    def __init__(self, config: Config, calls: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.calls = config, calls
        self.weight = nn.Parameter(torch.zeros(calls - 1, scope.dim))  # what the last call costs is no matter
        self.bias = nn.Parameter(torch.zeros(calls - 1))
        self.start = nn.Parameter(torch.tensor(calls / 2 if config.budget is None else config.budget))

    def begin(self, x: Tensor, calls: Calls, readout: Readout) -> _Spending:
        """See `Router`."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return _Spending(self.start.to(wide).expand(x.shape[:2]), torch.zeros(x.shape[:2], dtype=wide, device=x.device))

    def forward(
        self, route: _Spending, index: int, site: CallSite, x: Tensor, carry: Carry, calls: Calls
    ) -> tuple[Tensor, Carry]:
        rest = route.left.clamp(0, 1)
        if index < len(self.bias):
            normed = rms_norm(x.to(rest.dtype), None, EPSILON)
            route.left = route.left - ((normed * self.weight[index]).sum(-1) + self.bias[index]).sigmoid()
        route.paid = route.paid + rest
        if not anyone(rest > 0, calls.ctx):
            return x, calls.remember(site, x, carry)
        y, carry = calls(site, x, carry)
        x = torch.lerp(x, y, rest[..., None].to(x.dtype))
        calls.tap(site, x)
        return x, carry

    def end(self, route: _Spending, calls: Calls) -> Routed:
        """See `Router`."""
        total, number = counted(route.paid / self.calls, calls.ctx)
        if self.config.penalty and self.training:
            add_aux(calls.aux, {LOSS + "budget": (self.config.penalty * total, number)})
        add_aux(calls.aux, {"routing/share": (total.detach(), number)})
        return Routed(steps=route.paid.detach())
