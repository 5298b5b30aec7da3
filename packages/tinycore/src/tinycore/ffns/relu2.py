"""Squared-ReLU feed-forward, per position, no biases.

    plain (Primer, arXiv 2109.08668):              y = W_down relu(W_up x)^2
    gated (BitNet b1.58 2B4T, arXiv 2504.12285):   y = W_down (relu(W_gate x)^2 * W_up x)

x (B, T, D), `hidden` channels inside. With `sub_norm` what W_down reads is RMS-normalised first (SubLN), as BitNet does
before every ternary linear; squares have heavy tails, which a linear that quantises its input pays for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, FeedForwardConfig, LocalState, Scope
from tinycore.norms.rms import RMSNorm
from tinycore.ops.precision import product_dtype


class SquaredReLU(nn.Module):
    """(B, T, D) -> (B, T, D) through `hidden` channels."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForwardConfig, kind="relu2"):
        exempt: ClassVar[Mapping[str, str]] = {
            "identity": "takes the place of the plain feed-forward and adds nothing to it"
        }
        projections: ClassVar[tuple[str, ...]] = ("gate", "up", "down")
        hidden: int | None = field(
            default=None, metadata={"help": "channels; null = 4 dim, gated 8/3 dim rounded up to a multiple of 64"}
        )
        gated: bool = field(
            default=False, metadata={"help": "multiply the squares with a linear of their own (BitNet)"}
        )
        sub_norm: bool = field(default=False, metadata={"help": "RMSNorm before the last linear (BitNet)"})

        def __post_init__(self) -> None:
            if self.hidden is not None and self.hidden < 1:
                raise ConfigError(f"hidden: {self.hidden} is not positive")
            if not self.gated and "gate" in self.linear:
                raise ConfigError("linear: 'gate' is a projection of the gated form only; set gated: true or remove it")

        def width(self, scope: Scope) -> int:
            """`hidden`, or the width at which both forms have about 8 dim^2 parameters."""
            return self.hidden or (64 * -(-8 * scope.dim // (3 * 64)) if self.gated else 4 * scope.dim)

        def build(self, scope: Scope) -> SquaredReLU:
            return SquaredReLU(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            width, each = self.width(scope), scope.product_bytes
            total = self.projection(scope, "up").cost(scope.dim, width, "feed_forward")
            total += self.projection(scope, "down").cost(width, scope.dim, "feed_forward")
            kept = 2  # the rectified channels and their squares
            if self.gated:
                total += self.projection(scope, "gate").cost(scope.dim, width, "feed_forward")
                kept += 2  # the other factor and the product
            if self.sub_norm:
                kept += 1  # the norm's output; its input is counted above
            return total + Cost(
                parameters=width if self.sub_norm else 0,
                saved=float(each * (scope.dim + kept * width) + (4 if self.sub_norm else 0)),
                # gradients: of what the last linear reads, of the factors, and of the branch
                transient=scope.rows * length * (each * (3 * width + scope.dim) + (8 * width if self.sub_norm else 0)),
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        width = config.width(scope)
        self.gate = config.projection(scope, "gate").build(scope.dim, width) if config.gated else None
        self.up = config.projection(scope, "up").build(scope.dim, width)
        self.norm = RMSNorm(width) if config.sub_norm else None
        self.down = config.projection(scope, "down").build(width, scope.dim, scope.residual_gain)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        up = self.up(x)
        open = (up if self.gate is None else self.gate(x)).relu()
        inner = open * open  # not square(): autocast takes powers in float32
        if self.gate is not None:
            inner = inner * up
        if self.norm is not None:
            inner = self.norm(inner, product_dtype(inner))
        return self.down(inner), carry, state, {}
