"""Hourglass depth (arXiv 2110.13711): the middle layers see one vector for every k tokens.

    layers at full length  ->  shorten by k  ->  inner layers  ->  lengthen  ->  layers at full length

Levels nest: `factors: [3, 2]` with `outside: [2, 1]` runs 2 layers on tokens, 1 on groups of 3, the rest on groups of 2 of
these, then 1 and 2 on the way back. Token t of a document closes a group if t = 0 mod k: the group is tokens t-k+1 ... t, and
tokens t ... t+k-1 read it. (The paper's shift to the right by k - 1 before pooling, without which 8 of 15 positions leak at
k = 2.) Whatever remains at the end of a chunk waits for the next. What tokens get back is what the inner layers added to
their group, so that a factor of 1 is the plain stack; `shorten` and `lengthen`: see `resampling`.

Groups are tokens to the inner layers: RoPE and windows count groups. Linear layers cost 1/k inside, attention's scores less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth import groups as grouping
from tinycore.depth.calls import Ascent, Calls
from tinycore.depth.resampling import (
    Lengthen,
    LengthenKind,
    Shorten,
    ShortenKind,
    lengthen_cost,
    shorten_cost,
)
from tinycore.families import CallSite, Carry, DepthConfig, Scope
from tinycore.mixers.compaction import compaction
from tinycore.recompute import Policy
from tinycore.state import State

MAX_FACTOR = 256


class Hourglass(nn.Module):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="hourglass"):
        regroups: ClassVar[bool] = True
        factors: tuple[int, ...] = field(
            default=(2,), metadata={"help": "tokens, or groups, of a group, level by level"}
        )
        outside: tuple[int, ...] = field(
            default=(1,), metadata={"help": "layers before, and as many after, the shortening, level by level"}
        )
        shorten: ShortenKind = field(default="average", metadata={"help": "how a group becomes one vector"})
        lengthen: LengthenKind = field(default="repeat", metadata={"help": "how tokens get back what came of it"})

        def __post_init__(self) -> None:
            if not self.factors or not all(1 <= factor <= MAX_FACTOR for factor in self.factors):
                raise ConfigError(f"factors: {list(self.factors)} are not one or more numbers from 1 to {MAX_FACTOR}")
            if len(self.outside) != len(self.factors) or min(self.outside) < 0:
                raise ConfigError(
                    f"outside: {list(self.outside)} is not a number of layers for each of {len(self.factors)} factors"
                )

        def check(self, layers: int) -> None:
            if 2 * sum(self.outside) >= layers:
                raise ConfigError(
                    f"outside: {list(self.outside)} on both sides leave none of {layers} layers for the middle"
                )

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(CallSite(f"{self.level(layer, layers)}.{layer}", layer) for layer in range(layers))

        def level(self, layer: int, layers: int) -> int:
            """How often what a layer sees was shortened."""
            ends = [sum(self.outside[: level + 1]) for level in range(len(self.outside))]
            return sum(end <= layer < layers - end for end in ends)

        def slots(self, site: CallSite, layers: int, length: int) -> int:
            for factor in self.factors[: self.level(site.layer, layers)]:
                length = math.ceil(length / factor)
            return length

        def build(self, layers: int, scope: Scope) -> Hourglass:
            return Hourglass(self, layers, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            total, tokens = Cost(), length
            for factor in self.factors:
                groups = math.ceil(tokens / factor)
                down = shorten_cost(self.shorten, factor, scope).spread(groups / length)
                up = lengthen_cost(self.lengthen, factor, scope, tokens, groups).spread(tokens / length)
                total += down + up + Cost(state=factor * scope.dim)
                tokens = groups
            return total

    def __init__(self, config: Config, layers: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.count = config, layers
        self.recompute: Policy = "none"
        self.shorten = nn.ModuleList(Shorten(config.shorten, factor, scope.dim) for factor in config.factors)
        self.lengthen = nn.ModuleList(Lengthen(config.lengthen, factor, scope.dim) for factor in config.factors)

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
        return calls.result(self._level(0, list(self.config.call_sites(self.count)), calls, x, carry, ctx))

    def _level(self, level: int, sites: list[CallSite], calls: Calls, x: Tensor, shared: Carry, ctx: Context) -> Tensor:
        """x (B, T, D) after the calls at `sites`; groups take no part in what layers hand on to one another on tokens."""
        outside = self.config.outside[level] if level < len(self.config.factors) else len(sites)
        carry = shared
        for site in sites[:outside]:
            x, carry = calls(site, x, carry, ctx)
        if level == len(self.config.factors):
            return x
        inner = sites[outside : len(sites) - outside]
        x = x + self._inside(level, inner, calls, x, shared, ctx)
        for site in sites[len(sites) - outside :]:
            x, carry = calls(site, x, carry, ctx)
        return x

    def _inside(
        self, level: int, sites: list[CallSite], calls: Calls, x: Tensor, shared: Carry, ctx: Context
    ) -> Tensor:
        """What tokens x (B, T, D) get back from the level inside."""
        rows, length, _ = x.shape
        factor, path = self.config.factors[level], f"level{level}"
        past: grouping.GroupState | None = calls.past(f"{path}/groups")
        seen = compaction(ctx, rows, length, calls.kept is not None)
        closes = seen.valid & (seen.positions % factor == 0)
        whole = ctx.documents is None and past is None and ctx.contiguous
        found = grouping.group(ctx, seen, closes, factor, past, count=math.ceil(length / factor) if whole else None)
        lengthen: Lengthen = self.lengthen[level]  # ty: ignore[invalid-assignment]
        if found.windows.shape[1]:
            short = self.shorten[level](found.tokens(x, past), found.present)
            output = self._level(level + 1, sites, calls, short, shared, found.context)
        else:
            output = short = x[:, :0]
            self._skip(level + 1, sites, calls)
        gained = output - short
        read = found.read(lengthen.expand(gained), _expanded(past, lengthen))
        up = lengthen.at_offset(read, found.offset)
        past_memory = calls.past(f"{path}/memory")
        attended, memory = lengthen.attended(x + up, output, ctx, found.context, found.number, past_memory)
        if calls.kept is not None:
            calls.keep(f"{path}/groups", found.state(x, gained, past))
            if memory is not None:
                calls.keep(f"{path}/memory", memory)
        return up + attended

    def _skip(self, level: int, sites: list[CallSite], calls: Calls) -> None:
        """No group was closed: everything inside stays as it was."""
        for site in sites:
            calls.skip(site)
        for deeper in range(level, len(self.config.factors)):
            for part in ("groups", "memory"):
                entry = calls.past(f"level{deeper}/{part}")
                if entry is not None:
                    calls.keep(f"level{deeper}/{part}", entry)


def _expanded(past: grouping.GroupState | None, lengthen: Lengthen) -> grouping.GroupState | None:
    """The state with its output as tokens read it."""
    return None if past is None else past._replace(output=lengthen.expand(past.output))
