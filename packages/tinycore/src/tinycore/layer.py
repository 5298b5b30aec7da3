"""One layer: a mixer, then a feed-forward, each inside the model's norm placement and residual.

A parallel layer (GPT-J; PaLM, arXiv 2204.02311) is one sublayer of both: x <- residual(x, mixer(n) + ffn(n)), n = norm(x).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinycore.context import Context
from tinycore.families import Aux, Carry, LocalState, Scope, add_aux
from tinycore.model_config import LayerConfig
from tinycore.state import put_local, take_local

MODULATION = "modulation"


class Layer(nn.Module):
    """layer(x, carry, ctx, state) -> (x, carry, state, aux), with x (B, T, D).

    carry["modulation"] (2, D), where a depth puts it there, scales and shifts what every sublayer reads (adaptive
    normalisation, arXiv 2212.09748): n <- n (1 + scale) + shift.
    """

    def __init__(self, config: LayerConfig, scope: Scope) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({name: branch.build(scope) for name, branch in config.branches().items()})
        self.sublayers = config.sublayers()
        self.norms = nn.ModuleDict({name: scope.norm.build(scope, name) for name in self.sublayers})
        self.dropout = scope.dropout.build(scope.layer)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        kept: LocalState | None = None if state is None else {}
        aux: Aux = {}
        for sublayer, names in self.sublayers.items():
            norm: Any = self.norms[sublayer]
            base, inner = norm.before(x)
            inner = _modulated(inner, carry)
            total: Tensor | None = None
            for name in names:
                local = None if state is None else take_local(state, name)
                y, carry, local, found = self.branches[name](inner, carry, ctx, local)
                if self.dropout is not None:
                    y = self.dropout(y)
                total = y if total is None else total + y
                add_aux(aux, found)
                if kept is not None and local:
                    put_local(kept, name, local)
            x = norm.after(base, total)
        return x, carry, kept, aux

    def remember(self, x: Tensor, carry: Carry, ctx: Context, state: LocalState) -> tuple[Carry, LocalState]:
        """(carry, state) after tokens that stay as they are, x (B, T, D): what later tokens read of them here.

        Feed-forwards keep nothing. A mixer with `remember(x, carry, ctx, state) -> (carry, state)` does no more than that
        takes; others are run whole, and what they give is not used.
        """
        kept: LocalState = {}
        for sublayer, names in self.sublayers.items():
            if "mixer" not in names:
                continue
            norm: Any = self.norms[sublayer]
            mixer: Any = self.branches["mixer"]
            inner, local = _modulated(norm.before(x)[1], carry), take_local(state, "mixer")
            if hasattr(mixer, "remember"):
                carry, local = mixer.remember(inner, carry, ctx, local)
            else:
                _, carry, local, _ = mixer(inner, carry, ctx, local)
            if local:
                put_local(kept, "mixer", local)
        return carry, kept


def _modulated(inner: Tensor, carry: Carry) -> Tensor:
    """`inner` (B, T, D) under the carry's modulation, if there is one."""
    given = carry.get(MODULATION)
    if given is None:
        return inner
    scale, shift = given.to(inner.dtype)
    return torch.addcmul(inner + shift, inner, scale)
