"""The next-token head: logits = W h, W (V, D) its own or the embedding's; cross-entropy in chunks of positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.embed.table import INITIAL_STD
from tinycore.families import Aux, HeadConfig, Scope
from tinycore.linears.dense import Dense
from tinycore.ops.linear_cross_entropy import chunk_of, linear_cross_entropy


class HeadOutput(NamedTuple):
    """What a head gives: losses and statistics as {name: (sum, count)}, and logits where it was asked for them."""

    losses: Aux
    stats: Aux
    logits: Tensor | None = None


class LanguageModelHead(nn.Module):
    """Reads the final hidden states (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadConfig, kind="lm"):
        chunk: int | None = field(
            default=None,
            metadata={"help": "positions whose logits exist at one time while training; null = as suits the device"},
        )

        def __post_init__(self) -> None:
            if self.chunk is not None and self.chunk < 1:
                raise ConfigError(f"chunk: {self.chunk} is not positive")

        def build(self, scope: Scope, embed: nn.Module, tied: bool) -> LanguageModelHead:
            return LanguageModelHead(self, scope, tied)

        def cost(self, scope: Scope, tied: bool) -> Cost:
            size = scope.vocab_size * scope.dim
            # the gradients of the hidden states and of the matrix are made in the forward pass
            return Cost(
                parameters=0 if tied else size, flops={"head": 2.0 * size}, saved=4.0 * scope.dim, held=4 * size
            )

        def workspace(self, scope: Scope, tied: bool, tokens: int) -> int:
            """The last norm's output, the matrix as products take it, and the most of: two chunks on their way (logits and
            probabilities of one, probabilities of the other; casts of both), one chunk with its hidden states as products
            take them beside its share of a gradient, the hidden states' or the matrix's (as the product gives it, and in
            float32), the scaled gradients."""
            size, cast = scope.vocab_size * scope.dim, scope.cast_bytes
            chunk = self.chunk or chunk_of(scope.vocab_size, scope.device)
            positions = min(chunk, tokens)
            one, states = positions * scope.vocab_size, positions * scope.dim
            several = (3 * 4 + 2 * cast) * one if tokens > chunk else 0
            forward = cast * size + max(several, (2 * 4 + cast) * one + cast * states + (4 + cast) * max(states, size))
            return 4 * tokens * scope.dim + max(forward, 4 * size)

    def __init__(self, config: Config, scope: Scope, tied: bool) -> None:
        super().__init__()
        self.chunk = config.chunk
        gain = INITIAL_STD * scope.dim**0.5
        self.linear = None if tied else Dense(scope.dim, scope.vocab_size, bias=False, gain=gain)

    def forward(
        self, tapped: Mapping[str, Tensor], embedding: Tensor, ctx: Context, targets: Tensor | None, return_logits: bool
    ) -> HeadOutput:
        hidden = tapped["final"]
        logits = self.logits(hidden, embedding) if return_logits else None
        if targets is None:
            return HeadOutput({}, {}, logits)
        weight = self._weight(embedding)
        loss, count, correct = linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), self.chunk)
        return HeadOutput({"lm": (loss, count)}, {"correct": (correct, count)}, logits)

    def logits(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return F.linear(hidden, self._weight(embedding))

    def _weight(self, embedding: Tensor) -> Tensor:
        return embedding if self.linear is None else self.linear.weight
