"""Early exit (CALM, arXiv 2207.07061; LayerSkip, 2404.16710): a token that is sure of what comes next skips the rest.

    after each call in `after`:   c_t = max softmax(U norm(x_t));   a token with c_t above `threshold` stays as it is

Later tokens still read its keys and values, which the layers it skips make of the state in which it left; where every token
of a chunk has left, layers compute no more than those. In training nobody leaves, and the next-token head learns from the
streams at the exits as well (loss "early", of weight `weight`), so that they can be read. At threshold 1 nobody leaves and
nothing is read: the plain stack, bit for bit. `--model.routing.threshold` uses a trained model with another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.depth.calls import Calls, Early
from tinycore.depth.steps import anyone, apply, counted
from tinycore.families import CallSite, Carry, RoutingConfig, Scope, add_aux
from tinycore.routing.router import Readout, Routed, Router

CHUNK = 1024  # tokens whose logits exist at one time


@dataclass
class _Leaving:
    """Who is still there (B, T), None = all; how many calls tokens paid for; streams at the exits, in training."""

    readout: Readout
    running: Tensor | None
    paid: Tensor
    streams: list[Tensor]
    going: bool = True


class EarlyExit(Router):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(RoutingConfig, kind="early_exit"):
        exempt: ClassVar[Mapping[str, str]] = {
            "float32": "leaves at a threshold: a hard decision that rounding flips",
        }
        adjustable: ClassVar[tuple[str, ...]] = ("threshold", "after")
        freezes: ClassVar[bool] = True
        after: tuple[int, ...] | None = field(
            default=None, metadata={"help": "calls after which tokens may leave, from 1; null = after half of them"}
        )
        threshold: float = field(
            default=0.9, metadata={"help": "probability above which a token leaves; 1 = none does"}
        )
        weight: float = field(default=0.3, metadata={"help": "of the mean loss at the exits, in training"})

        def __post_init__(self) -> None:
            if not 0 <= self.threshold <= 1:
                raise ConfigError(f"threshold: {self.threshold} is not between 0 and 1")
            if not self.weight > 0:
                raise ConfigError(f"weight: {self.weight} is not positive, and exits that learn nothing cannot be read")
            if self.after is not None and (not self.after or list(self.after) != sorted(set(self.after))):
                raise ConfigError(f"after: {list(self.after)} is not a list of calls in rising order")

        @property
        def readings(self) -> int:
            return 1 if self.after is None else len(self.after)

        def exits(self, calls: int) -> tuple[int, ...]:
            """The calls after which tokens may leave, from 1."""
            return (max(1, calls // 2),) if self.after is None else self.after

        def check(self, calls: int) -> None:
            exits = self.exits(calls)
            if not 1 <= exits[0] <= exits[-1] < calls:
                raise ConfigError(
                    f"after: {list(exits)}: there are calls 1 to {calls}, and none is left after the last"
                )

        def build(self, sites: Sequence[CallSite], scope: Scope) -> EarlyExit:
            return EarlyExit(self, len(sites))

        def cost(self, scope: Scope, calls: int) -> Cost:
            return Cost()

    def __init__(self, config: Config, calls: int) -> None:
        super().__init__()
        self.config, self.exits = config, config.exits(calls)

    def begin(self, x: Tensor, calls: Calls, readout: Readout) -> _Leaving:
        """See `Router`."""
        leaves = not self.training and self.config.threshold < 1
        running = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if leaves else None
        return _Leaving(readout, running, torch.zeros(x.shape[:2], device=x.device), [])

    def forward(
        self, route: _Leaving, index: int, site: CallSite, x: Tensor, carry: Carry, calls: Calls
    ) -> tuple[Tensor, Carry]:
        route.paid = route.paid + (1 if route.running is None else route.running)
        x, carry = apply(calls, [site], x, carry, route.running, route.going)
        if index + 1 not in self.exits:
            return x, carry
        if self.training:
            route.streams.append(x)
        elif route.running is not None and route.going:
            route.running = route.running & (self._certainty(x, route.readout) <= self.config.threshold)
            route.going = anyone(route.running, calls.ctx)
        return x, carry

    def end(self, route: _Leaving, calls: Calls) -> Routed:
        """See `Router`."""
        if route.running is None:
            return Routed(Early(tuple(route.streams), self.config.weight) if route.streams else None)
        add_aux(calls.aux, {"routing/calls": counted(route.paid, calls.ctx)})
        return Routed(steps=route.paid)

    @staticmethod
    def _certainty(x: Tensor, readout: Readout) -> Tensor:
        """(B, T): the largest probability of a next token, of the stream x (B, T, D)."""
        return torch.cat([certainty(readout(part)) for part in x.flatten(0, 1).split(CHUNK)]).view(x.shape[:2])


def certainty(logits: Tensor) -> Tensor:
    """The largest probability (...,) of logits (..., V), in at least float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits.amax(-1) - logits.logsumexp(-1)).exp()
