"""BitNet b1.58's linear (arXiv 2402.17764; at small scale 2407.09527): ternary weights, 8-bit activations.

    n = x / sqrt(mean(x^2) + eps)          (..., inputs)       the sub-norm
    y = Q8(n) (Q(W))^T + b                 (..., outputs)      W (outputs, inputs) latent, floating

Q(W) = clamp(round(W / scale), -1, 1) scale with scale = mean |W| (or the median, which 2407.09527 finds better in small
models), Q8 rounds each token to 255 levels by its own maximum; both pass gradients straight through (`ops.bit_linear`,
which says why the product is exact). Per position, so causal.

The sub-norm has no gain, as in the authors' training notes, where the norm is a part of the linear: the gain of the norm
before the branch does what one here would do, and the count stays that of a dense linear. (Their 2B4T model has a gain, on
two of seven linears.) In the paper embeddings, head and norms stay in full precision, as they do here unless the head is
given a linear of its own. Where we differ from the seed: it has no straight-through estimator, no sub-norm and no eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import LinearConfig
from tinycore.ops.bit_linear import MOST_INPUTS, bit_linear
from tinycore.ops.precision import product_dtype
from tinycore.ops.rms_norm import rms_norm


class Bit(nn.Linear):
    """(..., inputs) -> (..., outputs)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LinearConfig, kind="bit"):
        exempt: ClassVar[Mapping[str, str]] = {
            "float32": "rounds to integers: a difference in the last bit of an activation moves it by a whole step",
        }
        scale: Literal["mean", "median"] = field(default="mean", metadata={"help": "of |W|, the size of a weight"})
        eps: float = field(default=1e-5, metadata={"help": "added to the mean square of the input"})
        bias: bool = field(default=False, metadata={"help": "add a bias per output"})

        def __post_init__(self) -> None:
            if not 0 < self.eps < 1:
                raise ConfigError(f"eps: {self.eps} is not between 0 and 1")

        def build(self, inputs: int, outputs: int, gain: float = 1.0) -> Bit:
            return Bit(inputs, outputs, self, gain)

        def cost(self, inputs: int, outputs: int, component: str) -> Cost:
            # kept: codes and step; the sub-norm's scale (its input is that of the linear); the ternary weight
            return Cost(
                parameters=inputs * outputs + (outputs if self.bias else 0),
                flops={component: 2.0 * inputs * outputs},
                saved=inputs + 8.0,
                held=inputs * outputs + 4,
            )

    def __init__(self, inputs: int, outputs: int, config: Config, gain: float) -> None:
        if inputs > MOST_INPUTS:
            raise ConfigError(f"linear: {inputs} inputs are more than the {MOST_INPUTS} whose integer sums are exact")
        self.config, self.gain = config, gain
        super().__init__(inputs, outputs, config.bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.gain * self.in_features**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        y = bit_linear(sub_norm(input, self.config), self.weight, self.config.scale)
        return (y if self.bias is None else y + self.bias).to(product_dtype(input))


def sub_norm(x: Tensor, config: Bit.Config) -> Tensor:
    """x (..., inputs) as the quantisation reads it, in at least float32."""
    return rms_norm(x, None, config.eps, torch.promote_types(x.dtype, torch.float32))
