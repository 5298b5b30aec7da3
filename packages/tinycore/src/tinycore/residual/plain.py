"""Plain residual connection: x + y."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import ResidualConfig, Scope


class PlainResidual(nn.Module):
    """(x, y) -> x + y, both (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ResidualConfig, kind="plain"):
        exempt: ClassVar[Mapping[str, str]] = {"identity": "is the plain stack itself"}

        def build(self, scope: Scope) -> PlainResidual:
            return PlainResidual()

        def cost(self, scope: Scope) -> Cost:
            return Cost()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y
