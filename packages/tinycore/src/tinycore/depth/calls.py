"""The calls of one pass: what they keep, what they report and what is tapped, whatever order a depth makes them in."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinycore.context import Context
from tinycore.families import Aux, CallSite, Carry, add_aux
from tinycore.recompute import Policy, call
from tinycore.state import State, put_local, take_local

MAX_CALLS = 65_536  # of layers in one forward pass: bounds what a stranger's config can make us do


class Latents(NamedTuple):
    """What recursive depth carries from one supervision step to the next: the answer so far and the thought behind it."""

    high: Tensor  # (B, T, D)
    low: Tensor  # (B, T, D)


class Readings(NamedTuple):
    """Several streams that the next-token head reads in training, each token's loss weighted."""

    streams: tuple[Tensor, ...]  # (B, T, D) each
    weights: tuple[Tensor, ...]  # (B, T) each, that of a token in the loss


class Early(NamedTuple):
    """Earlier streams that the next-token head learns from as well."""

    streams: tuple[Tensor, ...]  # (B, T, D) each
    weight: float  # of the loss "early", their mean


class Ascent(NamedTuple):
    """What a depth gives: the stream (B, T, D), the tapped outputs by call site, state, aux; latents of recursive depth;
    in training, what the next-token head reads instead of the stream, and what it reads beside it."""

    x: Tensor
    tapped: dict[str, Tensor]
    state: State | None
    aux: Aux
    latents: Latents | None = None
    readings: Readings | None = None
    early: Early | None = None
    steps: Tensor | None = None  # (B, T), how often shared layers were applied to each token, where that differs


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

    def __call__(self, site: CallSite, x: Tensor, carry: Carry, ctx: Context | None = None) -> tuple[Tensor, Carry]:
        """The layer of `site` on x (B, T, D), in the context of the pass or in `ctx`."""
        ctx = self.ctx if ctx is None else ctx
        local = None if self.state is None else take_local(self.state, site.path)
        if self.recompute != "none" and torch.is_grad_enabled():
            x, carry, found = call(self.layers[site.layer], x, carry, ctx, self.recompute)
        else:
            x, carry, local, found = self.layers[site.layer](x, carry, ctx, local)
        if self.kept is not None and local is not None:
            put_local(self.kept, site.path, local)
        add_aux(self.aux, found)
        self.tap(site, x)
        return x, carry

    def tap(self, site: CallSite, x: Tensor) -> None:
        """Let x (B, T, D) be what is tapped at `site`, if anything is."""
        if site.path in self.taps:
            self.tapped[site.path] = x

    def remember(self, site: CallSite, x: Tensor, carry: Carry) -> Carry:
        """Keep of x (B, T, D) at `site` what later tokens read there, and compute no more than that."""
        layer: Any = self.layers[site.layer]
        if self.state is not None and self.kept is not None:
            carry, local = layer.remember(x, carry, self.ctx, take_local(self.state, site.path))
            put_local(self.kept, site.path, local)
        self.tap(site, x)
        return carry

    def skip(self, site: CallSite) -> None:
        """Leave what `site` keeps as it was: none of its tokens are in this chunk."""
        if self.state is not None and self.kept is not None:
            put_local(self.kept, site.path, take_local(self.state, site.path))

    def past(self, path: str) -> Any:
        """What the depth itself kept at `path` ("<name>/<part>") of the chunks before; None in a fresh stream."""
        return None if self.state is None else self.state.get(path)

    def keep(self, path: str, entry: Any) -> None:
        """Have the depth itself keep a NamedTuple of tensors at `path`, where a state is kept at all."""
        if self.kept is not None:
            self.kept[path] = entry

    def result(
        self,
        x: Tensor,
        latents: Latents | None = None,
        readings: Readings | None = None,
        early: Early | None = None,
        steps: Tensor | None = None,
    ) -> Ascent:
        """What the pass gives, with the stream as it leaves the layers."""
        return Ascent(x, self.tapped, self.kept, self.aux, latents, readings, early, steps)
