"""Recursive depth of the Tiny Recursive Model (TRM, arXiv 2510.04871): one small net, applied to its own answer.

Two latents stand at every position, the answer z_H and the thought z_L, both (B, T, D); x is the embedded input and f the
stack of layers, the same for every call. A supervision step is H_cycles times

    L_cycles times  z_L <- f(z_L + z_H + x);   then  z_H <- f(z_H + z_L)

without gradients but in the last cycle, whose L_cycles + 1 calls of f are differentiated in full. The heads read z_H. The
next supervision step goes on from both latents, detached; the first from two fixed random vectors (normal, cut off at two
standard deviations), which are kept with the weights and not learned. Training takes an optimizer step after each
(`tinycore.objectives.deep_supervision`); a forward pass without latents makes all `supervision` steps in a row.

Memory of training is that of the last cycle, whatever H_cycles and `supervision` are. Position by position but for its
mixers, so causal with causal mixers (a language model, whose every call keeps a state of its own); with mixers that see all
positions it predicts in place. The net's output is its next input: norm placement `post` keeps its size, as published. (The
seed's language model sized z for the sequences of training, cut off 16 positions and shifted the labels twice.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.depth.calls import MAX_CALLS, Ascent, Calls, Latents
from tinycore.families import CallSite, Carry, DepthConfig, Scope
from tinycore.recompute import Policy
from tinycore.state import State


class Recursive(nn.Module):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="recursive"):
        exempt: ClassVar[Mapping[str, str]] = {
            "identity": "starts from latents of its own and applies the stack twice at least, so it never is the plain one"
        }
        adjustable: ClassVar[tuple[str, ...]] = ("H_cycles", "L_cycles", "supervision")
        H_cycles: int = field(default=3, metadata={"help": "updates of the answer in a supervision step"})
        L_cycles: int = field(default=6, metadata={"help": "updates of the thought before each of the answer"})
        supervision: int = field(
            default=16, metadata={"help": "supervision steps: most of a training batch, all of them when it is used"}
        )

        def __post_init__(self) -> None:
            for name in ("H_cycles", "L_cycles", "supervision"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not positive")

        @property
        def recurs(self) -> bool:
            return True

        @property
        def passes(self) -> int:
            return self.supervision

        def check(self, layers: int) -> None:
            calls = layers * self.supervision * self.H_cycles * (self.L_cycles + 1)
            if calls > MAX_CALLS:
                raise ConfigError(f"supervision: layers are called {calls:,} times in all, more than {MAX_CALLS:,}")

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(
                site
                for step in range(self.supervision)
                for cycle in range(self.H_cycles)
                for inner in range(self.L_cycles + 1)
                for site in application(layers, step, cycle, inner)
            )

        def gradient_calls(self, layers: int) -> tuple[CallSite, ...]:
            return self.call_sites(layers)[-layers * (self.L_cycles + 1) :]

        def joined_calls(self, layers: int) -> int:
            return layers  # each application of the stack begins with a stream of its own

        def build(self, layers: int, scope: Scope) -> Recursive:
            return Recursive(self, layers, scope)

    def __init__(self, config: Config, layers: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.count = config, layers
        self.recompute: Policy = "none"
        for name in ("high", "low"):
            start = nn.init.trunc_normal_(torch.empty(scope.dim), a=-2.0, b=2.0)
            self.register_buffer(name, start)
        self.high: Tensor
        self.low: Tensor

    def begin(self, x: Tensor) -> Latents:
        """The latents of the first supervision step for x (B, T, D), in x's dtype."""
        return Latents(*(start.to(x.dtype).expand(x.shape) for start in (self.high, self.low)))

    def forward(
        self,
        layers: nn.ModuleList,
        x: Tensor,
        carry: Carry,
        ctx: Context,
        state: State | None,
        taps: frozenset[str] = frozenset(),
        latents: Latents | None = None,
    ) -> Ascent:
        """All supervision steps, or, given what the one before left as `latents`, the one after it."""
        steps = self.config.supervision if latents is None else 1
        high, low = self.begin(x) if latents is None else latents
        calls = Calls(layers, ctx, state, taps, self.recompute)
        learning = torch.is_grad_enabled()
        for step in range(steps):
            for cycle in range(self.config.H_cycles):
                last = (step, cycle) == (steps - 1, self.config.H_cycles - 1)
                if last:
                    calls.aux.clear()  # what is reported, losses among it, is of the calls that learn
                with torch.set_grad_enabled(learning and last):
                    for inner in range(self.config.L_cycles):
                        low = self._applied(calls, low + high + x, carry, (step, cycle, inner))
                    high = self._applied(calls, high + low, carry, (step, cycle, self.config.L_cycles))
        return calls.result(high, Latents(high.detach(), low.detach()))

    def _applied(self, calls: Calls, x: Tensor, carry: Carry, place: tuple[int, int, int]) -> Tensor:
        """f(x)."""
        for site in application(self.count, *place):
            x, carry = calls(site, x, carry)
        return x


def application(layers: int, step: int, cycle: int, inner: int) -> list[CallSite]:
    """The calls of one application of the stack."""
    return [CallSite(f"{step}.{cycle}.{inner}.{layer}", layer) for layer in range(layers)]
