"""SwiGLU feed-forward (arXiv 2002.05202): W_down(silu(W_gate x) * W_up x), per position, no biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, FeedForwardConfig, LocalState, Scope
from tinycore.linears.dense import Dense
from tinycore.ops.swiglu import swiglu, swiglu_linear


class SwiGLU(nn.Module):
    """(B, T, D) -> (B, T, D) through `hidden` channels."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForwardConfig, kind="swiglu"):
        exempt: ClassVar[Mapping[str, str]] = {"identity": "is the plain stack itself"}
        projections: ClassVar[tuple[str, ...]] = ("gate", "up", "down")
        hidden: int | None = field(
            default=None, metadata={"help": "channels; null = 8/3 dim rounded up to a multiple of 64"}
        )

        def __post_init__(self) -> None:
            if self.hidden is not None and self.hidden < 1:
                raise ConfigError(f"hidden: {self.hidden} is not positive")

        def width(self, scope: Scope) -> int:
            """`hidden`, or 8/3 of the model's width rounded up to a multiple of 64."""
            return self.hidden or 64 * -(-8 * scope.dim // (3 * 64))

        def _plain(self, scope: Scope) -> bool:
            down = self.projection(scope, "down")
            return isinstance(down, Dense.Config) and not down.bias

        def build(self, scope: Scope) -> SwiGLU:
            return SwiGLU(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            width, each = self.width(scope), scope.product_bytes
            down = self.projection(scope, "down").cost(width, scope.dim, "feed_forward")
            if self._plain(scope):  # gate and up are kept; the matrix is cast in every call, not by autocast
                kept, held, down = 2 * width, scope.cast_bytes * width * scope.dim, replace(down, products=0)
            else:  # their product too, which the last linear keeps itself
                kept, held = 3 * width, 0
            return (
                self.projection(scope, "gate").cost(scope.dim, width, "feed_forward")
                + self.projection(scope, "up").cost(scope.dim, width, "feed_forward")
                + down
                + Cost(
                    saved=float(each * (scope.dim + kept)),  # the input as well
                    held=held,
                    # gradients of product, gate and up, silu(gate) or a product with it, and the branch's gradient (the
                    # stream's takes the place of what the head kept)
                    transient=scope.rows * length * each * (4 * width + scope.dim),
                )
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        width = config.width(scope)
        self.gate = config.projection(scope, "gate").build(scope.dim, width)
        self.up = config.projection(scope, "up").build(scope.dim, width)
        self.down = config.projection(scope, "down").build(width, scope.dim, scope.residual_gain)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        return self.transform(x), carry, state, {}

    def transform(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, up = self.gate(x), self.up(x)
        if type(self.down) is Dense and self.down.bias is None:
            return swiglu_linear(gate, up, self.down.weight)
        return self.down(swiglu(gate, up))
