"""The fixed order of calls that plain and shared depth run, and what stands between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from tinycore.context import Context
from tinycore.depth.calls import Ascent, Calls
from tinycore.families import CallSite, Carry, Scope
from tinycore.recompute import Policy
from tinycore.state import State


class Stack(nn.Module):
    """Applies layers at the given call sites, one after another; see `Calls` for state and taps.

    `stream` is the residual's module that joins the calls (`ResidualConfig`), `router` decides which tokens a call computes
    (`RoutingConfig`), `memory` is read and written between calls (`MemoryConfig`).
    """

    def __init__(self, sites: Sequence[CallSite], scope: Scope) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.stream = scope.residual.build_stream(scope)
        self.router: Any = None if scope.routing is None else scope.routing.build(self.sites, scope)
        self.memory: Any = None if scope.storage is None else scope.storage.build(len(self.sites), scope)
        self.recompute: Policy = "none"

    def forward(
        self,
        layers: nn.ModuleList,
        x: Tensor,
        carry: Carry,
        ctx: Context,
        state: State | None,
        taps: frozenset[str] = frozenset(),
        readout: Callable[[Tensor], Tensor] | None = None,
    ) -> Ascent:
        calls = Calls(layers, ctx, state, taps, self.recompute)
        joined: tuple[Tensor, ...] = ()
        held: Any = None
        route = None if self.router is None else self.router.begin(x, calls, readout)
        for index, site in enumerate(self.sites):
            if self.stream is not None:
                x, joined = self.stream(index, x, joined)
            if self.memory is not None:
                x, held = self.memory(index, x, held, calls)
            if self.router is not None:
                x, carry = self.router(route, index, site, x, carry, calls)
            else:
                x, carry = calls(site, x, carry)
        if self.stream is not None:
            x, joined = self.stream(len(self.sites), x, joined)
        if self.router is None:
            return calls.result(x)
        early, steps = self.router.end(route, calls)
        return calls.result(x, early=early, steps=steps)
