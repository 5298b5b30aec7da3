"""Mixture of Depths (arXiv 2404.02258): every other call is paid for by the tokens that need it most.

    r_t = w . norm(x_t);   S = the ceil(C T) tokens of a row with the largest r
    x_t <- x_t + r_t f(x_S)_t for t in S, f what the layer adds;   all others stay as they are

Tokens in S see one another only, at the positions they have. As published, C is 12.5 % and every second call is routed; the
seed's 50 % of all calls is {capacity: 0.5, every: 1}. (The seed multiplies the residual stream too, which loses the identity,
and lets chosen tokens believe that they stand side by side.) r reads the normed stream: that of a small model starts so near
zero that r would. `gate` is what f is multiplied with: r itself, its sigmoid, or nothing.

Who belongs to S cannot be known before the row is complete: the largest of a row depend on later tokens (edit one, and in a
quarter of random rows earlier choices change). Two ways out:

    topk        training picks the largest; a predictor, sigmoid(s r + b + B silu(A x)) > 1/2, no gradient to r and x, learns
                who was picked, and decides in use. Training sees the future in this one bit, use never does.
    threshold   sigmoid(r + b) > 1/2 decides in training and in use: causal throughout. r + b learns to be positive for the
                largest C, so that about as many are picked; a row may pick none or all.

Memory of a call holds the tokens that it picked, so states are smaller too. Rows pick different numbers in use: the others'
slots are padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.families import LOSS, CallSite, Carry, RoutingConfig, Scope, add_aux
from tinycore.linears.dense import Dense
from tinycore.mixers.compaction import take
from tinycore.ops.rms_norm import EPSILON, rms_norm
from tinycore.routing.router import Router

DATA = "which tokens pay depends on the data"
AUXILIARY = 0.1  # weight of the loss that teaches who is picked; a threshold's goes through the trunk too


class MixtureOfDepths(Router):
    """See the module's docstring."""

    gating: ClassVar[tuple[str, ...]] = ("enter", "leave")
    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    @dataclass(frozen=True, kw_only=True)
    class Config(RoutingConfig, kind="mod"):
        exempt: ClassVar[Mapping[str, str]] = {
            "float32": "picks tokens by a threshold: a hard decision that rounding flips",
            "counted": f"{DATA}: counted at the capacity, in test_mod",
            "flops": f"{DATA}: counted at the capacity, in test_mod",
        }
        regroups: ClassVar[bool] = True
        capacity: float = field(default=0.125, metadata={"help": "share of the tokens that a routed call computes"})
        every: int = field(default=2, metadata={"help": "one call in so many is routed, the last of them; 1 = all"})
        selection: Literal["topk", "threshold"] = field(
            default="topk", metadata={"help": "who is picked in training: the largest of the row, or above a threshold"}
        )
        gate: Literal["raw", "sigmoid", "none"] = field(
            default="raw", metadata={"help": "what a routed call's addition is multiplied with"}
        )
        hidden: int | None = field(default=None, metadata={"help": "topk: channels of the predictor; null = dim / 4"})

        def __post_init__(self) -> None:
            if not 0 < self.capacity <= 1:
                raise ConfigError(f"capacity: {self.capacity} is not above 0 and at most 1")
            for name in ("every", "hidden"):
                value = getattr(self, name)
                if value is not None and value < 1:
                    raise ConfigError(f"{name}: {value} is not positive")
            if self.hidden is not None and self.selection == "threshold":
                raise ConfigError("hidden: a threshold has no predictor; leave it out")
            if self.gate == "none" and self.selection == "topk" and self.capacity < 1:
                raise ConfigError("gate: none gives the choice of topk nothing to learn from; use raw or sigmoid")

        def routed(self, index: int) -> bool:
            """Whether call `index` is."""
            return index % self.every == self.every - 1

        def picked(self, length: int) -> int:
            """How many of a row's tokens a routed call computes in training."""
            return min(length, math.ceil(self.capacity * length))

        def slots(self, index: int, length: int) -> int:
            return self.picked(length) if self.routed(index) else length

        def predictor(self, scope: Scope) -> int:
            """Channels of the predictor."""
            return self.hidden or max(1, scope.dim // 4)

        def build(self, sites: Sequence[CallSite], scope: Scope) -> MixtureOfDepths:
            return MixtureOfDepths(self, len(sites), scope)

        def cost(self, scope: Scope, calls: int) -> Cost:
            routed = sum(self.routed(index) for index in range(calls))
            if self.selection == "threshold":
                return Cost(parameters=routed * (scope.dim + 1), saved=4.0 * routed * (scope.dim + 2))
            hidden = self.predictor(scope)
            products = hidden * (scope.dim + 1)
            return Cost(
                parameters=routed * (scope.dim + products + hidden + 2),
                flops={"routing": 2.0 * routed * products},
                saved=4.0 * routed * (2 * scope.dim + 2 * hidden + 3),
            )

    def __init__(self, config: Config, calls: int, scope: Scope) -> None:
        super().__init__()
        self.config = config
        routed = sum(config.routed(index) for index in range(calls))
        self.weight = nn.Parameter(torch.empty(routed, scope.dim))
        nn.init.normal_(self.weight, std=scope.dim**-0.5)
        # of r, which is standard normal at the start, the share `capacity` is above -bias
        start = NormalDist().inv_cdf(min(max(config.capacity, 1e-6), 1 - 1e-6))
        self.bias = nn.Parameter(torch.full((routed,), start))
        self.slope, self.enter, self.leave = None, None, None
        if config.selection == "topk":
            self.slope = nn.Parameter(torch.ones(routed))
            hidden = config.predictor(scope)
            self.enter = nn.ModuleList(Dense(scope.dim, hidden, True, 1.0) for _ in range(routed))
            self.leave = nn.ModuleList(Dense(hidden, 1, False, 1.0) for _ in range(routed))

    def forward(
        self, route: Any, index: int, site: CallSite, x: Tensor, carry: Carry, calls: Calls
    ) -> tuple[Tensor, Carry]:
        if not self.config.routed(index):
            return calls(site, x, carry)
        place = index // self.config.every
        normed = rms_norm(x, None, EPSILON)
        scores = (normed * self.weight[place].to(normed.dtype)).sum(-1)  # (B, T)
        picked, count = self._pick(place, normed, scores, calls)
        if count == 0:
            calls.skip(site)
            return x, carry
        if self.config.capacity == 1:  # everyone pays: there is nothing to pick
            y, carry = calls(site, x, carry)
            x = self._gated(x, y, scores)
        else:
            order = torch.argsort((~picked).long(), dim=1, stable=True)[:, :count]  # (B, K), in the row's order
            there, before = picked.gather(1, order), take(x, order)
            y, carry = calls(site, before, carry, _context(calls.ctx, order, there, calls.kept is not None))
            y = torch.where(there[..., None], self._gated(before, y, scores.gather(1, order)), before)
            x = x.scatter(1, order[..., None].expand_as(y), y)
        calls.tap(site, x)
        return x, carry

    def _gated(self, x: Tensor, y: Tensor, scores: Tensor) -> Tensor:
        """What a call that made y of x (B, K, D) leaves of it, with scores (B, K)."""
        if self.config.gate == "none":
            return y
        factor = scores.sigmoid() if self.config.gate == "sigmoid" else scores
        return x + factor[..., None] * (y - x)

    def _pick(self, place: int, normed: Tensor, scores: Tensor, calls: Calls) -> tuple[Tensor, int]:
        """Who pays, (B, T) bool, false at padding, and how many a row at most."""
        valid, length = calls.ctx.valid, scores.shape[1]
        valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid.expand_as(scores)
        if self.config.capacity == 1:
            return valid, length
        logit = scores
        if self.slope is not None:
            assert self.enter is not None
            assert self.leave is not None
            further = self.leave[place](F.silu(self.enter[place](normed.detach())))[..., 0]
            logit = self.slope[place] * scores.detach() + further
        logit = logit + self.bias[place].to(logit.dtype)
        picked = (logit > 0) & valid
        count: int | None = None
        if self.training:
            most = self.config.picked(length)
            largest = scores.masked_fill(~valid, -torch.inf).topk(most, dim=1).indices
            wanted = torch.zeros_like(valid).scatter(1, largest, True) & valid
            loss = F.binary_cross_entropy_with_logits(logit, wanted.to(logit.dtype), reduction="none")
            total = AUXILIARY * torch.where(valid, loss, 0).sum()
            right = ((picked == wanted) & valid).sum()
            add_aux(calls.aux, {LOSS + "routing": (total, valid.sum()), "routing/predicted": (right, valid.sum())})
            if self.slope is not None:
                picked, count = wanted, most
        add_aux(calls.aux, {"routing/share": (picked.sum(), valid.sum())})
        if count is None:
            count = length if _traced(picked) else int(picked.sum(1).max())
        return picked, count


def _context(ctx: Context, order: Tensor, there: Tensor, kept: bool) -> Context:
    """The context of the tokens in `order` (B, K), at the positions that they have; those that are not `there` are padding."""
    found = ctx.gather(order)
    # a state must know of each row whether it has seen anything, so it is given ids throughout
    if found.documents is None and not kept and not _traced(there) and bool(there.all()):
        return found
    ids = torch.zeros_like(order) if found.documents is None else found.documents
    return Context(found.positions, torch.where(there, ids, PADDING), routes=found.routes, gaps=True)


def _traced(x: Tensor) -> bool:
    """Whether values are not there to be looked at: in a graph, whose shapes cannot depend on them."""
    return torch.compiler.is_compiling() or x.device.type == "meta"
