"""Post-norm placement (the original Transformer, arXiv 1706.03762): x <- norm(residual(x, f(x))).

The last sublayer's norm stands before the heads, so there is none of their own. Position by position, hence causal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import NormConfig, Scope
from tinycore.norms.around import NormedAround


class PostNorm(NormedAround):
    """The norm behind one sublayer; see `NormConfig` for the calling convention."""

    @dataclass(frozen=True, kw_only=True)
    class Config(NormConfig, kind="post"):
        exempt: ClassVar[Mapping[str, str]] = {
            "identity": "another order of the same parts, no add-on to the plain stack"
        }

        def build(self, scope: Scope, sublayer: str) -> PostNorm:
            return PostNorm(scope, self)

        def build_final(self, scope: Scope) -> nn.Module:
            return nn.Identity()

        def cost(self, scope: Scope, sublayer: str) -> Cost:
            return Cost() if sublayer == "final" else super().cost(scope, sublayer)

    def after(self, base: Tensor, y: Tensor) -> Tensor:
        return self.norm(self.residual(base, y))
