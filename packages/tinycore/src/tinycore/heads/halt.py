"""The halting head of the Tiny Recursive Model (arXiv 2510.04871): is every cell of the answer right by now?

    q (B, 2) = W z_H[:, 0] + b,   W = 0 and b = -5 at the start, so that sigmoid(q) = .0067

The first logit is trained by `tinycore.objectives.deep_supervision`, which knows the answer: binary cross-entropy against
"all targets of the row are predicted". The second is the published "continue" logit, which nothing trains any more; it is
kept for the published counts of parameters. It reads position 0, which sees all others in a model that predicts in place;
in a causal one it would see nothing, so there it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import IN_PLACE, HeadConfig, Scope
from tinycore.heads.head import Head, HeadOutput, Question

START = -5.0


class HaltingHead(Head):
    """Gives its logits (B, 2) as a value and no loss of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadConfig, kind="halt"):
        exempt: ClassVar[Mapping[str, str]] = {
            **dict.fromkeys(("learns", "mixes", "causal", "streams", "float32"), IN_PLACE),
            "compiled": "has no loss in the model itself, so its gradient is none there, and zero in a compiled graph",
            "flops": "makes one product a row, which is no share of a token's",
            "identity": "adds an output and changes none",
        }

        @property
        def halts(self) -> bool:
            return True

        def check(self, scope: Scope, tied: bool, causal: bool) -> None:
            if causal:
                raise ConfigError("kind: halt reads position 0, which in a causal model sees nothing; leave it out")

        def build(self, scope: Scope, embed: nn.Module, tied: bool) -> HaltingHead:
            return HaltingHead(scope.dim)

        def cost(self, scope: Scope, tied: bool) -> Cost:
            return Cost(parameters=2 * scope.dim + 2)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q = nn.Linear(dim, 2)
        nn.init.zeros_(self.q.weight)
        nn.init.constant_(self.q.bias, START)

    def dead_entries(self) -> dict[str, Tensor]:
        """The "continue" logit's, see the module's docstring."""
        dead = {"q.weight": torch.zeros_like(self.q.weight, dtype=torch.bool)}
        dead["q.bias"] = torch.zeros_like(self.q.bias, dtype=torch.bool)
        for mask in dead.values():
            mask[1] = True
        return dead

    def forward(self, question: Question) -> HeadOutput:
        return HeadOutput({}, {}, value=self.q(question.tapped["final"][:, 0]))
