"""A verifier's opinion: how likely is it that what stands here so far ends well (arXiv 2110.14168)?

    v_t = w . h_t + b   (B, T) logits, h the final hidden states; w and b zero at the start: sigmoid(v) = 1/2

One scalar a token; the opinion of a whole sequence is that of its last token. It is learned by
`tinycore.objectives.verdicts` from sequences that are known to be right or wrong; a text teaches it nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import HeadConfig, Scope
from tinycore.heads.head import Head, HeadOutput, Question

UNTAUGHT = "learns from verdicts, which no text has: held by test_value"


class ValueHead(Head):
    """Gives logits (B, T) as `Output.values["value"]`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadConfig, kind="value"):
        exempt: ClassVar[Mapping[str, str]] = {
            **dict.fromkeys(("trainable", "alive"), UNTAUGHT),
            "compiled": "has no loss in the model itself, so its gradient is none there, and zero in a compiled graph",
            "flops": "the loss of a text does not go through it, so that its backward pass makes no product",
        }

        def check(self, scope: Scope, tied: bool, causal: bool) -> None:
            if not causal:
                raise ConfigError(
                    "kind: value judges what stands so far, in a causal model; this one predicts in place"
                )

        def build(self, scope: Scope, embed: nn.Module, tied: bool) -> ValueHead:
            return ValueHead(scope.dim)

        def cost(self, scope: Scope, tied: bool) -> Cost:
            return Cost(parameters=scope.dim + 1, flops={"value": 2.0 * scope.dim}, saved=4.0)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, question: Question) -> HeadOutput:
        return HeadOutput({}, {}, value=self.linear(question.tapped["final"])[..., 0])
