"""Universal depth: one group of layers applied up to N times, each token as often as it needs.

    s_n = f(s_{n-1} + e_n),  n = 1 ... N;   h_n = sigmoid(w . norm(s_n) + b);   f = all layers in a row

`act`, adaptive computation time (arXiv 1603.08983, Universal Transformer 1807.03819). A token halts at its first step M with
sum of h up to M >= 1 - epsilon, or at N. With R = 1 - the sum of h before M,

    y = sum_{n < M} h_n s_n + R s_M        (the weights of a token add up to 1)

`ponder_cost` (M + R) is a loss: gradients go through R only. A halted token stays as it is and supplies keys and
values to others.

`ponder`, PonderNet (arXiv 2107.05407). h_n is the probability of halting at step n if not before: p_n = h_n prod_{j < n}
(1 - h_j), and p_N takes what is left. The loss is sum_n p_n CE(s_n) + beta KL(p || g), g the geometric distribution of
`prior`, its last term taking the rest: training makes all N steps of every token. Used, a token halts at its median step, the
first with p_1 + ... + p_n >= 1/2, where PonderNet draws one: the same text every time. From there on it stays as it is, while
in training its states went on.

Statistic `depth/steps`: how many steps a token took; in training of `ponder`, the expected number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth.calls import MAX_CALLS, Ascent, Calls, Readings
from tinycore.depth.steps import Halting, StepKind, anyone, apply, build_steps, counted, halting_cost, steps_cost
from tinycore.families import LOSS, CallSite, Carry, DepthConfig, Scope
from tinycore.layer import MODULATION
from tinycore.recompute import Policy
from tinycore.state import State

MAX_STEPS = 1024


class Universal(nn.Module):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="universal"):
        adjustable: ClassVar[tuple[str, ...]] = ("most", "epsilon")
        halting: Literal["act", "ponder"] = field(default="act", metadata={"help": "how a token's steps are decided"})
        most: int = field(default=8, metadata={"help": "steps that a token makes at most"})
        step: StepKind = field(default="add", metadata={"help": "what tells a layer in which step it is"})
        steps: int | None = field(
            default=None, metadata={"help": "steps that are told apart; later ones are the last; null = all"}
        )
        bias: float = field(default=1.0, metadata={"help": "of the halting readout at the start; high = few steps"})
        epsilon: float = field(default=0.01, metadata={"help": "act: a token halts once 1 - epsilon is used up"})
        ponder_cost: float = field(default=1e-3, metadata={"help": "act: loss of a step"})
        prior: float = field(default=0.25, metadata={"help": "ponder: probability of halting at a step, a priori"})
        beta: float = field(default=0.01, metadata={"help": "ponder: weight of the divergence from the prior"})

        def __post_init__(self) -> None:
            for name in ("most", "steps"):
                value = getattr(self, name)
                if value is not None and not 1 <= value <= MAX_STEPS:
                    raise ConfigError(f"{name}: {value} is not between 1 and {MAX_STEPS}")
            for name in ("epsilon", "prior"):
                if not 0 < getattr(self, name) < 1:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not between 0 and 1")
            for name in ("ponder_cost", "beta"):
                if getattr(self, name) < 0:
                    raise ConfigError(f"{name}: {getattr(self, name)} is negative")

        def check(self, layers: int) -> None:
            if layers * self.most > MAX_CALLS:
                raise ConfigError(f"most: {self.most} steps of {layers} layers are more than {MAX_CALLS:,} calls")

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(site for step in range(self.most) for site in application(step, layers))

        @property
        def readings(self) -> int:
            return self.most if self.halting == "ponder" else 1

        def settled(self) -> DepthConfig:
            return replace(self, steps=self.steps or self.most)

        def build(self, layers: int, scope: Scope) -> Universal:
            return Universal(self, layers, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            told_apart = steps_cost(self.step, self.steps or self.most, scope.dim)
            # the readout of a step; the stream that it selects from, and what it selects
            one = halting_cost(scope.dim) + Cost(saved=8.0 * scope.dim)
            return told_apart + one.called(self.most)

    def __init__(self, config: Config, layers: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.count = config, layers
        self.recompute: Policy = "none"
        self.steps = build_steps(config.step, config.steps or config.most, scope.dim)
        self.halting = Halting(scope.dim, config.bias)

    def forward(
        self,
        layers: nn.ModuleList,
        x: Tensor,
        carry: Carry,
        ctx: Context,
        state: State | None,
        taps: frozenset[str] = frozenset(),
    ) -> Ascent:
        calls = Calls(layers, ctx, state, taps, self.recompute)
        if self.config.halting == "act":
            return self._adaptive(calls, x, carry)
        return self._pondered(calls, x, carry) if self.training else self._median(calls, x, carry)

    def _step(
        self, step: int, calls: Calls, x: Tensor, carry: Carry, running: Tensor | None, going: bool = True
    ) -> tuple[Tensor, Carry]:
        """s_n of s_{n-1} for the tokens that are running, None = all."""
        moved, inside = x, carry
        if self.steps is not None:
            moved, inside = self.steps(step, x, carry)
        if running is not None:
            moved = torch.where(running[..., None], moved, x)
        x, inside = apply(calls, application(step, self.count), moved, inside, running, going)
        return x, {name: value for name, value in inside.items() if name != MODULATION}

    def _adaptive(self, calls: Calls, x: Tensor, carry: Carry) -> Ascent:
        most, ctx = self.config.most, calls.ctx
        running = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        wide = torch.promote_types(x.dtype, torch.float32)
        spent, left, taken = (torch.zeros(x.shape[:2], dtype=wide, device=x.device) for _ in range(3))
        y, going = torch.zeros_like(x), True
        for step in range(most):
            x, carry = self._step(step, calls, x, carry, running, going)
            h = self.halting(x).sigmoid()
            ends = running & (spent + h >= 1 - self.config.epsilon) if step + 1 < most else running
            rest = 1 - spent
            weight = torch.where(ends, rest, torch.where(running, h, 0))
            y = torch.addcmul(y, weight[..., None].to(x.dtype), x)
            left, taken = torch.where(ends, rest, left), taken + running
            spent, running = torch.where(running, spent + h, spent), running & ~ends
            going = anyone(running, ctx)
            if not going and calls.state is None:
                break
        calls.aux["depth/steps"] = counted(taken, ctx)
        ponder, number = counted(taken + left, ctx)
        calls.aux[LOSS + "ponder"] = (self.config.ponder_cost * ponder, number)
        return calls.result(y, steps=taken)

    def _pondered(self, calls: Calls, x: Tensor, carry: Carry) -> Ascent:
        most, prior = self.config.most, math.log(1 - self.config.prior)
        streams: list[Tensor] = []
        weights: list[Tensor] = []
        log_left, divergence = torch.zeros(()), torch.zeros(())
        for step in range(most):
            x, carry = self._step(step, calls, x, carry, None)
            logit = self.halting(x)
            if step == 0:
                log_left, divergence = torch.zeros_like(logit), torch.zeros_like(logit)
            log_p = log_left + F.logsigmoid(logit) if step + 1 < most else log_left
            log_g = step * prior + (math.log(self.config.prior) if step + 1 < most else 0.0)
            p = log_p.exp()
            divergence = divergence + p * (log_p - log_g)
            log_left = log_left + F.logsigmoid(-logit)
            streams.append(x)
            weights.append(p)
        expected = sum(((step + 1) * p.detach() for step, p in enumerate(weights)), torch.zeros_like(weights[0]))
        calls.aux["depth/steps"] = counted(expected, calls.ctx)
        total, number = counted(divergence, calls.ctx)
        calls.aux[LOSS + "ponder"] = (self.config.beta * total, number)
        readings = Readings(tuple(streams), tuple(weights))
        return calls.result(x, readings=readings, steps=expected)

    def _median(self, calls: Calls, x: Tensor, carry: Carry) -> Ascent:
        most, ctx = self.config.most, calls.ctx
        running = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        wide = torch.promote_types(x.dtype, torch.float32)
        left, taken = (torch.full(x.shape[:2], value, dtype=wide, device=x.device) for value in (1.0, 0.0))
        going = True
        for step in range(most):
            x, carry = self._step(step, calls, x, carry, running, going)
            taken = taken + running
            left = torch.where(running, left * (1 - self.halting(x).sigmoid()), left)
            running = running & (left > 0.5)
            going = anyone(running, ctx)
            if not going and calls.state is None:
                break
        calls.aux["depth/steps"] = counted(taken, ctx)
        return calls.result(x, steps=taken)


def application(step: int, layers: int) -> list[CallSite]:
    """The calls of one step."""
    return [CallSite(f"{step}.{layer}", layer) for layer in range(layers)]
