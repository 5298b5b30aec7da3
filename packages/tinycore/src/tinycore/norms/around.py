"""What stands around a sublayer: the residual, and in most placements a norm of the stream.

base, input = before(x);  x <- after(base, sublayer(input))        all (B, T, D)
"""

from __future__ import annotations

from torch import Tensor, nn

from tinycore.families import NormConfig, Scope
from tinycore.norms.rms import RMSNorm
from tinycore.ops.precision import product_dtype


class Around(nn.Module):
    """No norm: the sublayer reads the stream, and its output is added to it."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.residual = scope.residual.build(scope)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # what a branch does with its input are matrix products: cast once here, not once in each
        return x, x.to(product_dtype(x))

    def after(self, base: Tensor, y: Tensor) -> Tensor:
        return self.residual(base, y)


class NormedAround(Around):
    """Has a norm of the stream; where it stands is the placement's."""

    def __init__(self, scope: Scope, config: NormConfig) -> None:
        super().__init__(scope)
        self.norm = RMSNorm(scope.dim, config.eps, config.affine)
