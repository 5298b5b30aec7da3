"""Pre-norm placement (arXiv 2002.04745): x <- residual(x, f(norm(x))), and one norm before the heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import NormConfig, Scope
from tinycore.norms.rms import RMSNorm
from tinycore.ops.precision import product_dtype


class PreNorm(nn.Module):
    """The norm around one sublayer; see `NormConfig` for the calling convention."""

    @dataclass(frozen=True, kw_only=True)
    class Config(NormConfig, kind="pre"):
        parallel: ClassVar[bool] = True

        def build(self, scope: Scope, sublayer: str) -> PreNorm:
            return PreNorm(scope, self)

        def build_final(self, scope: Scope) -> RMSNorm:
            return RMSNorm(scope.dim, self.eps, self.affine)

        def cost(self, scope: Scope, sublayer: str) -> Cost:
            # the stream and its scale; what reads the output keeps that
            return Cost(parameters=scope.dim if self.affine else 0, saved=4.0 * (scope.dim + 1))

    def __init__(self, scope: Scope, config: Config) -> None:
        super().__init__()
        self.norm = RMSNorm(scope.dim, config.eps, config.affine)
        self.residual = scope.residual.build(scope)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # what a branch does with it are matrix products: cast once here, not once in each
        return x, self.norm(x, product_dtype(x))

    def after(self, base: Tensor, y: Tensor) -> Tensor:
        return self.residual(base, y)
