"""One layer: a mixer, then a feed-forward, each inside the model's norm placement and residual."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tinycore.context import Context
from tinycore.families import Aux, Carry, LocalState, Scope, add_aux
from tinycore.model_config import LayerConfig
from tinycore.state import put_local, take_local


class Layer(nn.Module):
    """layer(x, carry, ctx, state) -> (x, carry, state, aux), with x (B, T, D)."""

    def __init__(self, config: LayerConfig, scope: Scope) -> None:
        super().__init__()
        branches = {"mixer": config.mixer, "ffn": config.ffn}
        self.branches = nn.ModuleDict({n: branch.build(scope) for n, branch in branches.items() if branch is not None})
        self.norms = nn.ModuleDict({name: scope.norm.build(scope, name) for name in self.branches})

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        kept: LocalState | None = None if state is None else {}
        aux: Aux = {}
        for name, branch in self.branches.items():
            norm: Any = self.norms[name]
            base, inner = norm.before(x)
            local = None if state is None else take_local(state, name)
            y, carry, local, found = branch(inner, carry, ctx, local)
            x = norm.after(base, y)
            add_aux(aux, found)
            if kept is not None and local:
                put_local(kept, name, local)
        return x, carry, kept, aux
