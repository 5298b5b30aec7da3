"""HybridNorm (arXiv 2503.04598): norms of queries, keys and values inside attention, a post-norm around the feed-forward.

    y = residual(x, attention(x))        with RMSNorm on each head of q, k and v (`mixers.attention`), none before
    n = norm(y);  x <- residual(n, ffn(n))

HybridNorm* is the same but for the first layer, which has a pre-norm before attention as well and an ordinary pre-norm
feed-forward: x <- residual(y, ffn(norm(y))). Both have a norm before the heads. Position by position, hence causal; a
mixer without queries, keys and values has no place for the first norm and is refused. (The seed's code keeps one pre-norm
and normalises q and k to length 1, which makes attention uniform, and v not at all.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tinycore.count import Cost
from tinycore.families import NormConfig, Scope
from tinycore.norms.around import Around, NormedAround
from tinycore.norms.pre import PreNorm
from tinycore.ops.precision import product_dtype


class HybridNorm(NormedAround):
    """Around the feed-forward: what is added to is normalised as well."""

    @dataclass(frozen=True, kw_only=True)
    class Config(NormConfig, kind="hybrid"):
        exempt: ClassVar[Mapping[str, str]] = {
            "identity": "another order of the same parts, no add-on to the plain stack"
        }
        normalises_qkv: ClassVar[bool] = True

        def first(self, scope: Scope) -> bool:
            """Whether the layer is built as a pre-norm layer."""
            return False

        def build(self, scope: Scope, sublayer: str) -> nn.Module:
            if self.first(scope):
                return PreNorm(scope, PreNorm.Config(eps=self.eps, affine=self.affine))
            return Around(scope) if sublayer == "mixer" else HybridNorm(scope, self)

        def cost(self, scope: Scope, sublayer: str) -> Cost:
            inside = sublayer == "mixer" and not self.first(scope)
            return Cost() if inside else super().cost(scope, sublayer)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        base = self.norm(x)
        return base, base.to(product_dtype(x))


@dataclass(frozen=True, kw_only=True)
class HybridStarConfig(HybridNorm.Config, kind="hybrid_star"):
    """HybridNorm*."""

    def first(self, scope: Scope) -> bool:
        return scope.layer == 0
