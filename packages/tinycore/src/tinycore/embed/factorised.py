"""A factorised embedding (ALBERT, arXiv 1909.11942): rows of E channels, and one matrix that makes D of them.

    x = scale * U W[token],   W (V, E), U (D, E);   a tied head gives logits W (U^T h)

V E + E D parameters in place of V D: with 8,192 tokens and D = 256, E = 64 saves 1.6M of 2.1M, and the head's product as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.embed.table import INITIAL_STD
from tinycore.families import EmbedConfig, Scope
from tinycore.linears.dense import Dense
from tinycore.registers import Registers, registers_cost


class Factorised(nn.Module):
    """tokens (B, T) -> (B, T, D)."""

    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    @dataclass(frozen=True, kw_only=True)
    class Config(EmbedConfig, kind="factorised"):
        exempt: ClassVar[Mapping[str, str]] = {"identity": "has other parameters than a table, no setting in common"}
        channels: int = field(default=64, metadata={"help": "channels of a token's row"})
        scale: float = field(default=1.0, metadata={"help": "factor on the embedding"})
        registers: int = field(
            default=0, metadata={"help": "learned vectors in front of every document, which its tokens may read"}
        )

        def __post_init__(self) -> None:
            if self.channels < 1:
                raise ConfigError(f"channels: {self.channels} is not positive")
            if self.registers < 0:
                raise ConfigError(f"registers: {self.registers} is negative")
            if self.scale <= 0:
                raise ConfigError(f"scale: {self.scale} is not positive")

        def row_dim(self, dim: int) -> int:
            return self.channels

        @property
        def register_slots(self) -> int:
            return self.registers

        def build(self, scope: Scope) -> Factorised:
            return Factorised(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            tokens = Cost(
                parameters=scope.vocab_size * self.channels + self.channels * scope.dim,
                flops={"embedding": 2.0 * self.channels * scope.dim},
                saved=8.0 + 4.0 * self.channels,
            )
            return tokens + registers_cost(self.registers, scope.dim)

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.scale = config.scale
        self.weight = nn.Parameter(torch.empty(scope.vocab_size, config.channels))
        nn.init.normal_(self.weight, std=INITIAL_STD)
        self.up = Dense(config.channels, scope.dim, False, 1.0)
        self.registers = Registers(config.registers, scope.dim, config.scale) if config.registers else None

    def as_row(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) as what a tied head multiplies with the rows of `weight`: (..., E)."""
        return hidden @ self.up.weight.to(hidden.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.up(nn.functional.embedding(tokens, self.weight))
        return x if self.scale == 1.0 else x * self.scale
