"""Value residual (arXiv 2410.17897): attention reads a mixture of its own values and the first layer's.

    v_n <- first * v_1 + own * v_n        v_1, v_n (B, G, T, h): the same token's values, after their norm, before the cache

v_1 are the values of the first call of a pass whose attention has this option, however often its layer is called; that
call has nothing to add and is left alone. The two factors are scalars of each layer, learned (the paper's starts both at
0.5) or fixed; (1, 1, fixed) is what the seed's code adds, (0, 1) is the plain stack. Causal: a token reads its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinycore.families import Carry

FIRST_VALUES = "first_values"


@dataclass(frozen=True, kw_only=True)
class ValueResidualConfig:
    """The factors of v_n <- first * v_1 + own * v_n."""

    first: float = field(default=0.5, metadata={"help": "factor on the first layer's values, at the start"})
    own: float = field(default=0.5, metadata={"help": "factor on the layer's own values, at the start"})
    learned: bool = field(default=True, metadata={"help": "learn both factors in each layer"})


class ValueResidual(nn.Module):
    """(v, carry) -> (v, carry), v (B, G, T, h). A `source` never reads and has no parameters."""

    def __init__(self, config: ValueResidualConfig, source: bool) -> None:
        super().__init__()
        self.first: float | nn.Parameter = config.first
        self.own: float | nn.Parameter = config.own
        if config.learned and not source:
            self.first, self.own = (nn.Parameter(torch.tensor(factor)) for factor in (config.first, config.own))

    def forward(self, v: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        first = carry.get(FIRST_VALUES)
        if first is None:
            return v, {**carry, FIRST_VALUES: v}
        return self.first * first + self.own * v, carry
