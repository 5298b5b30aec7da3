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
from tinycore.norms.rms import RMSNorm
from tinycore.ops.precision import product_dtype


class PostNorm(nn.Module):
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
            if sublayer == "final":
                return Cost()
            return Cost(parameters=scope.dim if self.affine else 0, saved=4.0 * (scope.dim + 1))

    def __init__(self, scope: Scope, config: Config) -> None:
        super().__init__()
        self.norm = RMSNorm(scope.dim, config.eps, config.affine)
        self.residual = scope.residual.build(scope)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.to(product_dtype(x))

    def after(self, base: Tensor, y: Tensor) -> Tensor:
        return self.norm(self.residual(base, y))
