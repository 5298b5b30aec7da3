"""The fixed order of calls that plain and shared depth run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tinycore.context import Context
from tinycore.depth.calls import Ascent, Calls
from tinycore.families import CallSite, Carry
from tinycore.recompute import Policy
from tinycore.state import State


class Stack(nn.Module):
    """Applies layers at the given call sites, one after another; see `Calls` for state and taps.

    `stream` is the residual's module that joins the calls; see `ResidualConfig`.
    """

    def __init__(self, sites: Sequence[CallSite], stream: nn.Module | None = None) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.stream = stream
        self.recompute: Policy = "none"

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
        joined: tuple[Tensor, ...] = ()
        for index, site in enumerate(self.sites):
            if self.stream is not None:
                x, joined = self.stream(index, x, joined)
            x, carry = calls(site, x, carry)
        if self.stream is not None:
            x, joined = self.stream(len(self.sites), x, joined)
        return calls.result(x)
