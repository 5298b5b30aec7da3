"""The fixed order of calls that plain and shared depth run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinycore.context import Context
from tinycore.families import Aux, CallSite, Carry, add_aux
from tinycore.recompute import Policy, call
from tinycore.state import State, put_local, take_local


class Stack(nn.Module):
    """Applies layers at the given call sites, threading carry, state and aux.

    `recompute` is what calls in training keep for their backward pass, see `tinycore.recompute`.
    `state` maps "<call site>/<branch>" to what that call keeps; `taps` are the call sites whose output is returned, as
    the layer gave it. `stream` is the residual's module that joins the calls; see `ResidualConfig`.
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
    ) -> tuple[Tensor, dict[str, Tensor], State | None, Aux]:
        kept: State | None = None if state is None else {}
        tapped: dict[str, Tensor] = {}
        aux: Aux = {}
        joined: tuple[Tensor, ...] = ()
        again = self.recompute != "none" and state is None and torch.is_grad_enabled()
        for index, site in enumerate(self.sites):
            if self.stream is not None:
                x, joined = self.stream(index, x, joined)
            local = None if state is None else take_local(state, site.path)
            if again:
                x, carry, found = call(layers[site.layer], x, carry, ctx, self.recompute)
            else:
                x, carry, local, found = layers[site.layer](x, carry, ctx, local)
            if kept is not None and local is not None:
                put_local(kept, site.path, local)
            add_aux(aux, found)
            if site.path in taps:
                tapped[site.path] = x
        if self.stream is not None:
            x, joined = self.stream(len(self.sites), x, joined)
        return x, tapped, kept, aux
