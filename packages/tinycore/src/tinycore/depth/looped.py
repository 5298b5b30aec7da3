"""Looped depth (arXiv 2502.17416): k layers applied L times, kL layers deep with the parameters of k.

    h_0 = what enters the loop;   for l = 1 ... L:   h_l = f(enter_l(h_{l-1})),   f = layers `start` ... `stop` - 1

Layers before `start` and from `stop` on are called once, before and after. What enters loop l is h_{l-1}, plus

    step        a vector of the loop (`add`), or its scale and shift of every normed input (`adaln`)
    injection   P norm(h_0) from the second loop on, P (D, D) zero at the start
    feedback    Q norm(h_{l-1} of the token before), from the second loop on, Q zero at the start: what the Feedback
                Transformer (arXiv 2002.09402) carries from the top to the next token, a loop later and so in parallel (the
                seed's code added the top of the last position to all of them)

`fewest`: training passes draw their number of loops between that and L, uniformly, so that every loop's output can be read.
`similarity`: weight of 1 - cos(h_l, h_{l-1}) in the loss, averaged over l and tokens. (The paper draws weights of blocks
together; where the weights are shared that is done.)

`halt`: a token may stop early (arXiv 2207.07061, state saturation). p_l = sigmoid(w . norm(h_l) + b) learns, without a
gradient to h, whether cos(h_l, h_L) >= `saturation`. Used, not trained, a token halts after the first loop with p_l above
`threshold`: it stays as it is, and layers keep its keys and values in all later loops. Once every token of a chunk has halted
nothing more is computed of it than those. Each (loop, layer) has a state of its own; residual outputs are scaled down for all
calls once. Position by position but for the mixers and the token before: causal with causal mixers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth.calls import MAX_CALLS, Ascent, Calls
from tinycore.depth.previous import previous
from tinycore.depth.steps import (
    Halting,
    StepKind,
    anyone,
    apply,
    build_steps,
    counted,
    halting_cost,
    steps_cost,
)
from tinycore.families import LOSS, CallSite, Carry, DepthConfig, Scope, add_aux
from tinycore.layer import MODULATION
from tinycore.linears.dense import Dense
from tinycore.ops.rms_norm import EPSILON, rms_norm
from tinycore.recompute import Policy
from tinycore.state import State

MAX_LOOPS = 1024


@dataclass(frozen=True, kw_only=True)
class HaltConfig:
    """When a token of a looped model stops."""

    threshold: float = field(default=0.9, metadata={"help": "probability above which a token halts; 1 = none does"})
    saturation: float = field(
        default=0.99, metadata={"help": "cosine to the last loop's output from which on halting is right, in training"}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: {self.threshold} is not between 0 and 1")
        if not -1 < self.saturation < 1:
            raise ConfigError(f"saturation: {self.saturation} is not between -1 and 1")


class Looped(nn.Module):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="looped"):
        adjustable: ClassVar[tuple[str, ...]] = ("loops", "halt.threshold")
        loops: int = field(default=2, metadata={"help": "applications of the looped layers"})
        start: int = field(default=0, metadata={"help": "layers called once before the loop"})
        stop: int | None = field(default=None, metadata={"help": "first layer called once after it; null = none is"})
        fewest: int | None = field(
            default=None,
            metadata={"help": "loops of a training pass at least, drawn up to `loops`; null = always all"},
        )
        step: StepKind = field(default="none", metadata={"help": "what tells a layer in which loop it is"})
        steps: int | None = field(
            default=None, metadata={"help": "steps that there are; later loops use the last; null = one a loop"}
        )
        injection: bool = field(default=False, metadata={"help": "add what entered the loop again before each"})
        feedback: bool = field(default=False, metadata={"help": "add the last loop's output at the token before"})
        similarity: float = field(
            default=0.0, metadata={"help": "weight of 1 - cosine of successive loops, in the loss"}
        )
        halt: HaltConfig | None = field(default=None, metadata={"help": "let tokens stop early; null = no"})

        def __post_init__(self) -> None:
            if not 1 <= self.loops <= MAX_LOOPS:
                raise ConfigError(f"loops: {self.loops} is not between 1 and {MAX_LOOPS}")
            if self.fewest is not None and not 1 <= self.fewest <= self.loops:
                raise ConfigError(f"fewest: {self.fewest} is not between 1 and loops {self.loops}")
            if self.steps is not None and not 1 <= self.steps <= MAX_LOOPS:
                raise ConfigError(f"steps: {self.steps} is not between 1 and {MAX_LOOPS}")
            if self.steps is not None and self.step == "none":
                raise ConfigError("steps: step is none, so there are none; set step, or leave steps out")
            if self.similarity < 0:
                raise ConfigError(f"similarity: {self.similarity} is negative")

        def check(self, layers: int) -> None:
            stop = layers if self.stop is None else self.stop
            if not 0 <= self.start < stop <= layers:
                raise ConfigError(f"start: the loop from layer {self.start} to {stop} is none in a stack of {layers}")
            if (stop - self.start) * self.loops > MAX_CALLS:
                raise ConfigError(
                    f"loops: {self.loops} of {stop - self.start} layers are more than {MAX_CALLS:,} calls"
                )

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            before, after = self.once(layers)
            loops = (site for loop in range(self.loops) for site in self.loop(loop, layers))
            return (*before, *loops, *after)

        def once(self, layers: int) -> tuple[list[CallSite], list[CallSite]]:
            """The calls before and after the loops."""
            sites = [CallSite(str(layer), layer) for layer in range(layers)]
            return sites[: self.start], sites[layers if self.stop is None else self.stop :]

        def loop(self, loop: int, layers: int) -> list[CallSite]:
            """The calls of one loop."""
            stop = layers if self.stop is None else self.stop
            return [CallSite(f"{loop}.{layer}", layer) for layer in range(self.start, stop)]

        def settled(self) -> DepthConfig:
            # how few loops training draws is no matter to a trained model, and must not stand above their number
            found = replace(self, fewest=None)
            return found if self.step == "none" else replace(found, steps=self.steps or self.loops)

        def build(self, layers: int, scope: Scope) -> Looped:
            return Looped(self, layers, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            joined = self.injection + self.feedback
            total = steps_cost(self.step, self.steps or self.loops, scope.dim)
            if self.halt is not None:
                total += halting_cost(scope.dim).called(self.loops - 1)
            again = self.loops - 1
            return total + Cost(
                parameters=joined * scope.dim**2,
                flops={"depth": 2.0 * joined * again * scope.dim**2} if joined else {},
                saved=joined * again * (scope.product_bytes + 4.0) * scope.dim,
                state=scope.dim * again if self.feedback else 0,
            )

    def __init__(self, config: Config, layers: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.count = config, layers
        self.recompute: Policy = "none"
        self.steps = build_steps(config.step, config.steps or config.loops, scope.dim)
        square = Dense.Config()
        self.injection = square.build(scope.dim, scope.dim, 0.0) if config.injection else None
        self.feedback = square.build(scope.dim, scope.dim, 0.0) if config.feedback else None
        self.halting = None if config.halt is None else Halting(scope.dim, 0.0)

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
        before, after = self.config.once(self.count)
        x, carry = apply(calls, before, x, carry, None)
        entered, outputs = x, []
        halt = None if self.training else self.config.halt
        running = None if halt is None else torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        used, going = torch.zeros(x.shape[:2], device=x.device), True
        loops = self._loops()
        for loop in range(loops):
            inside, moved = self._enter(loop, x, entered, carry, calls)
            if running is not None:
                used = used + running
                moved = torch.where(running[..., None], moved, x)
            x, inside = apply(calls, self.config.loop(loop, self.count), moved, inside, running, going)
            carry = {name: value for name, value in inside.items() if name != MODULATION}
            outputs.append(x)
            if running is not None and halt is not None and self.halting is not None and loop + 1 < loops:
                running = running & (self.halting(x).sigmoid() <= halt.threshold)
                going = anyone(running, ctx)
                if not going and state is None and not taps:
                    break
        if running is not None:
            calls.aux["depth/loops"] = counted(used, ctx)
        self._compare(outputs, ctx, calls)
        x, carry = apply(calls, after, x, carry, None)
        return calls.result(x, steps=used if running is not None else None)

    def _loops(self) -> int:
        """How many loops this pass makes; in training drawn from torch's global generator, where `fewest` says so."""
        fewest, loops = self.config.fewest, self.config.loops
        if not self.training or fewest is None:
            return loops
        return int(torch.randint(fewest, loops + 1, (), device="cpu"))

    def _enter(self, loop: int, x: Tensor, entered: Tensor, carry: Carry, calls: Calls) -> tuple[Carry, Tensor]:
        """What the layers of a loop get: the carry, and the stream x (B, T, D) with what is added to it."""
        moved = x
        if loop and self.injection is not None:
            moved = moved + self.injection(rms_norm(entered, None, EPSILON))
        if loop and self.feedback is not None:
            path = f"{loop}/feedback"
            shifted, newest = previous(x, calls.ctx, calls.past(path), calls.kept is not None)
            calls.keep(path, newest)
            moved = moved + self.feedback(rms_norm(shifted, None, EPSILON))
        if self.steps is not None:
            moved, carry = self.steps(loop, moved, carry)
        return carry, moved

    def _compare(self, outputs: list[Tensor], ctx: Context, calls: Calls) -> None:
        """Losses that compare the loops' outputs."""
        config, last = self.config, outputs[-1]
        if config.similarity and len(outputs) > 1:
            for earlier, later in pairwise(outputs):
                total, number = counted(1 - F.cosine_similarity(earlier, later, dim=-1), ctx)
                add_aux(calls.aux, {LOSS + "similarity": (config.similarity * total, number)})
        if config.halt is not None and self.halting is not None and self.training:
            for earlier in outputs[:-1]:
                reached = F.cosine_similarity(earlier.detach(), last.detach(), dim=-1) >= config.halt.saturation
                logit = self.halting(earlier.detach())
                loss = F.binary_cross_entropy_with_logits(logit, reached.to(logit), reduction="none")
                add_aux(
                    calls.aux, {LOSS + "halt": counted(loss, ctx), "depth/saturated": counted(reached.to(logit), ctx)}
                )
