"""Pre-norm placement (arXiv 2002.04745): x <- residual(x, f(norm(x))), and one norm before the heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tinycore.families import NormConfig, Scope
from tinycore.norms.around import NormedAround
from tinycore.ops.precision import product_dtype


class PreNorm(NormedAround):
    """The norm before one sublayer; see `NormConfig` for the calling convention."""

    @dataclass(frozen=True, kw_only=True)
    class Config(NormConfig, kind="pre"):
        parallel: ClassVar[bool] = True

        def build(self, scope: Scope, sublayer: str) -> PreNorm:
            return PreNorm(scope, self)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.norm(x, product_dtype(x))
