"""The calls of one pass: what they keep, what they report and what is tapped, whatever order a depth makes them in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinycore.context import Context
from tinycore.families import Aux, CallSite, Carry, add_aux
from tinycore.recompute import Policy, call
from tinycore.state import State, put_local, take_local


class Latents(NamedTuple):
    """What recursive depth carries from one supervision step to the next: the answer so far and the thought behind it."""

    high: Tensor  # (B, T, D)
    low: Tensor  # (B, T, D)


class Ascent(NamedTuple):
    """What a depth gives: the stream (B, T, D), the tapped outputs by call site, state, aux; latents of recursive depth."""

    x: Tensor
    tapped: dict[str, Tensor]
    state: State | None
    aux: Aux
    latents: Latents | None = None


class Calls:
    """Applies layers at call sites.

    `state` maps "<call site>/<branch>" to what that call keeps; `taps` are the call sites whose output is returned, as the
    layer gave it; `recompute` is what calls in training keep for their backward pass, see `tinycore.recompute`.
    """

    def __init__(
        self, layers: nn.ModuleList, ctx: Context, state: State | None, taps: frozenset[str], recompute: Policy
    ) -> None:
        self.layers, self.ctx, self.state, self.taps = layers, ctx, state, taps
        self.recompute: Policy = recompute if state is None else "none"
        self.kept: State | None = None if state is None else {}
        self.tapped: dict[str, Tensor] = {}
        self.aux: Aux = {}

    def __call__(self, site: CallSite, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The layer of `site` on x (B, T, D)."""
        local = None if self.state is None else take_local(self.state, site.path)
        if self.recompute != "none" and torch.is_grad_enabled():
            x, carry, found = call(self.layers[site.layer], x, carry, self.ctx, self.recompute)
        else:
            x, carry, local, found = self.layers[site.layer](x, carry, self.ctx, local)
        if self.kept is not None and local is not None:
            put_local(self.kept, site.path, local)
        add_aux(self.aux, found)
        if site.path in self.taps:
            self.tapped[site.path] = x
        return x, carry

    def result(self, x: Tensor, latents: Latents | None = None) -> Ascent:
        """What the pass gives, with the stream as it leaves the layers."""
        return Ascent(x, self.tapped, self.kept, self.aux, latents)
