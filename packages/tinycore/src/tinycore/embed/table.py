"""Token embedding table: row of the token, times `scale`. The head may be tied to it (arXiv 1608.05859)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import EmbedConfig, Scope
from tinycore.registers import Registers, registers_cost

INITIAL_STD = 0.02


class Table(nn.Embedding):
    """tokens (B, T) -> (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(EmbedConfig, kind="table"):
        exempt: ClassVar[Mapping[str, str]] = {"identity": "is the plain stack itself"}
        scale: float = field(default=1.0, metadata={"help": "factor on the embedding"})
        registers: int = field(
            default=0, metadata={"help": "learned vectors in front of every document, which its tokens may read"}
        )

        def __post_init__(self) -> None:
            if self.registers < 0:
                raise ConfigError(f"registers: {self.registers} is negative")
            if self.scale <= 0:
                raise ConfigError(f"scale: {self.scale} is not positive")

        def build(self, scope: Scope) -> Table:
            return Table(scope.vocab_size, scope.dim, self.scale, self.registers)

        @property
        def register_slots(self) -> int:
            return self.registers

        def cost(self, scope: Scope, length: int) -> Cost:
            tokens = Cost(parameters=scope.vocab_size * scope.dim, saved=8.0)  # the tokens themselves
            return tokens + registers_cost(self.registers, scope.dim)

    def __init__(self, vocab_size: int, dim: int, scale: float, registers: int) -> None:
        super().__init__(vocab_size, dim)
        self.scale = scale
        self.registers = Registers(registers, dim, scale) if registers else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def as_row(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) as what a tied head multiplies with the rows of `weight`."""
        return hidden

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        return x if self.scale == 1.0 else x * self.scale
