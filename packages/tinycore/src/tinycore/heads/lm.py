"""The next-token head: logits = W h, W (V, D) its own or the embedding's; cross-entropy in chunks of positions. `scale` is a
factor on them, for width transfer (`optim.width`).

A head of its own may be parameterised as any linear (`linear: {kind: cola, rank: 64}`); with none named it is dense,
whatever the model's other linears are. With `probabilities: stablemax` (`ops.stablemax`) all logits exist at once, in
float64: for the few tokens of a puzzle, not for a language's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.embed.table import INITIAL_STD
from tinycore.families import HeadConfig, LinearConfig, Scope
from tinycore.heads.head import Head, HeadOutput, Question
from tinycore.linears.dense import Dense
from tinycore.ops.linear_cross_entropy import chunk_of, linear_cross_entropy, module_cross_entropy
from tinycore.ops.stablemax import stablemax_cross_entropy


class LanguageModelHead(Head):
    """Reads the final hidden states (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadConfig, kind="lm"):
        chunk: int | None = field(
            default=None,
            metadata={"help": "positions whose logits exist at one time while training; null = as suits the device"},
        )
        linear: LinearConfig | None = field(
            default=None,
            metadata={"help": "the head's own matrix, where it is not tied to the embedding; null = dense"},
        )

        probabilities: Literal["softmax", "stablemax"] = field(
            default="softmax", metadata={"help": "what makes probabilities of logits, in the loss"}
        )

        weight: float = field(default=1.0, metadata={"help": "factor on the loss in training, beside other heads'"})

        scale: float | None = field(
            default=None,
            metadata={
                "help": "factor on the logits; null = 1, or, untied in a recipe with optim.base_width, that over dim"
            },
        )

        def __post_init__(self) -> None:
            if self.scale is not None and not self.scale > 0:
                raise ConfigError(f"scale: {self.scale} is not positive")
            if not self.weight > 0:
                raise ConfigError(f"weight: {self.weight} is not positive")
            if self.chunk is not None and self.chunk < 1:
                raise ConfigError(f"chunk: {self.chunk} is not positive")

        def check(self, scope: Scope, tied: bool, causal: bool) -> None:
            matrix = self.matrix
            if self.scale is not None and not (isinstance(matrix, Dense.Config) and not matrix.bias):
                raise ConfigError(
                    "scale: is on the logits of one matrix, and this head is more than that (in a recipe, optim.base_width "
                    "asks for it); make the head dense without a bias, or leave it out"
                )
            if self.linear is not None and tied:
                raise ConfigError(
                    "linear: the head is the embedding's matrix; set embed.tied to false, or leave it out"
                )

        @property
        def matrix(self) -> LinearConfig:
            return Dense.Config() if self.linear is None else self.linear

        def build(self, scope: Scope, embed: nn.Module, tied: bool) -> LanguageModelHead:
            return LanguageModelHead(self, scope, tied)

        def cost(self, scope: Scope, tied: bool) -> Cost:
            matrix = self.matrix.cost(scope.row_dim if tied else scope.dim, scope.vocab_size, "head")
            if tied and scope.row_dim != scope.dim:  # what becomes of the hidden states first
                matrix += Cost(flops={"head": 2.0 * scope.dim * scope.row_dim}, saved=4.0 * scope.row_dim)
            # the gradients of the hidden states and of the matrix are made in the forward pass
            return Cost(
                parameters=0 if tied else matrix.parameters,
                flops=matrix.flops,
                saved=4.0 * (scope.row_dim if tied else scope.dim),
                held=4 * matrix.parameters,
            )

        def workspace(self, scope: Scope, tied: bool, tokens: int) -> int:
            """The last norm's output, the matrix as products take it, and the most of: a chunk's logits and probabilities
            (beside the gradient of the one before and its cast) with its hidden states as products take them; the gradient
            of its logits, the cast, and its share of the hidden states' or the matrix's gradient (as the product gives it,
            and in float32); the scaled gradients."""
            width, cast = scope.row_dim if tied else scope.dim, scope.cast_bytes
            size = self.matrix.cost(width, scope.vocab_size, "head").parameters
            chunk = self.chunk or chunk_of(scope.vocab_size, scope.device)
            positions = min(chunk, tokens)
            one, states = positions * scope.vocab_size, positions * width
            earlier = (4 + cast) * one if tokens > chunk else 0
            if self.linear is not None:  # whose logits are kept as they came until their gradients are there
                earlier += cast * one
            loss, gradients = 2 * 4 * one, (4 + cast) * one + (4 + cast) * max(states, size)
            forward = cast * (size + states) + max(earlier + loss, gradients)
            scaled = 4 * tokens * width if self.scale is not None else 0
            return 4 * tokens * scope.dim + scaled + max(forward, 4 * size)

    def __init__(self, config: Config, scope: Scope, tied: bool) -> None:
        super().__init__()
        self.chunk, self.probabilities, self.weight = config.chunk, config.probabilities, config.weight
        self.scale = 1.0 if config.scale is None else config.scale
        gain = INITIAL_STD * scope.dim**0.5
        self.linear = None if tied else config.matrix.build(scope.dim, scope.vocab_size, gain)
        self.vocab_size = scope.vocab_size

    def forward(self, question: Question) -> HeadOutput:
        hidden, embed = question.tapped["final"], question.vocabulary.embed
        logits = self.logits(hidden, embed) if question.return_logits else None
        if question.targets is None:
            return HeadOutput({}, {}, logits)
        loss, count, correct = self.loss(hidden, embed, question.targets, question.weights, logits)
        if self.training and self.weight != 1.0:  # what is validated is the cross-entropy itself
            loss = self.weight * loss
        return HeadOutput({"lm": (loss, count)}, {"correct": (correct, count)}, logits)

    def loss(
        self, hidden: Tensor, embed: Any, targets: Tensor, weights: Tensor | None = None, logits: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(sum of the cross-entropy, number of targets, how many are predicted right) of hidden (B, T, D), targets (B, T)."""
        wanted, weights = targets.flatten(), None if weights is None else weights.flatten()
        if self.probabilities == "stablemax":
            known = self.logits(hidden, embed) if logits is None else logits
            return stablemax_cross_entropy(known.flatten(0, 1), wanted, weights)
        matrix = self.matrix(embed)
        if matrix is None:
            assert self.linear is not None
            flat = self.read(hidden).flatten(0, 1)
            return module_cross_entropy(flat, self.linear, wanted, self.chunk, self.vocab_size, weights)
        flat = self.read(hidden if self.linear is not None else embed.as_row(hidden)).flatten(0, 1)
        return linear_cross_entropy(flat, matrix, wanted, self.chunk, weights)

    def logits(self, hidden: Tensor, embed: Any) -> Tensor:
        """(..., D) -> (..., V)."""
        if self.linear is None:
            return F.linear(self.read(embed.as_row(hidden)), embed.weight)
        return self.linear(self.read(hidden))

    def read(self, hidden: Tensor) -> Tensor:
        """What the matrix is multiplied with: scaled logits are those of scaled states."""
        return hidden if self.scale == 1.0 else hidden * self.scale

    def matrix(self, embed: Any) -> Tensor | None:
        """W (V, D), the embedding's if the head is tied to it; None where the head is more than a matrix."""
        if self.linear is None:
            return embed.weight
        return self.linear.weight if isinstance(self.linear, Dense) and self.linear.bias is None else None
