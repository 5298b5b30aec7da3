"""What each parameter of a model is, which decides how an optimizer treats it.

    hidden      a matrix between channels inside the layers
    head        a matrix of a head (a tied one is the embedding's)
    gate        a matrix that a module names in `gating`, by the submodule it belongs to: it routes or gates
    embedding   rows that are looked up
    table       a matrix that is no map between channels, which a module names in `undecayed`
    vector      everything with less than two dimensions: norms, biases, scalars

A module that keeps several matrices in one submodule names that in `fused`, with the rows of each. A parameter is met once
however often it is shared; frozen ones (requires_grad False) are left out. The order is the model's, so that an optimizer's
state has a stable layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["hidden", "head", "gate", "embedding", "table", "vector"]
DECAYED: frozenset[Kind] = frozenset({"hidden", "head", "gate"})


@dataclass(frozen=True)
class Role:
    """One parameter: what it is, the rows of the matrices in it where they are several, and once in how many steps it is
    updated."""

    name: str
    parameter: nn.Parameter
    kind: Kind
    parts: tuple[int, ...]
    period: int

    @property
    def decays(self) -> bool:
        return self.kind in DECAYED


def roles(model: nn.Module) -> list[Role]:
    """Every parameter that is trained, in the model's order."""
    named: dict[int, Kind] = {}
    parts: dict[int, tuple[int, ...]] = {}
    periods: dict[int, int] = {}
    heads = getattr(model, "heads", None)
    if isinstance(heads, nn.Module):
        named |= {id(parameter): "head" for parameter in heads.parameters()}
    for module in model.modules():
        for name in getattr(module, "gating", ()):
            gate = getattr(module, name)
            named |= {id(parameter): "gate" for parameter in (gate.parameters() if gate is not None else ())}
        named |= {id(module.get_parameter(name)): "table" for name in getattr(module, "undecayed", ())}
        if isinstance(module, nn.Embedding):
            named[id(module.weight)] = "embedding"
        for name, rows in getattr(module, "fused", {}).items():
            inside = getattr(module, name).parameters()
            parts |= {id(p): tuple(rows) for p in inside if p.ndim == 2 and len(p) == sum(rows)}
        period = getattr(module, "update_period", 1)
        if period > 1:
            periods |= {id(parameter): period for parameter in module.parameters()}
    found = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = id(parameter)
            kind: Kind = "vector" if parameter.ndim < 2 else named.get(key, "hidden")
            found.append(Role(name, parameter, kind, parts.get(key, ()), periods.get(key, 1)))
    return found
