"""Several tokens ahead at once (multi-token prediction, arXiv 2404.19737).

    h_i = norm_i(W_i h),   logits_i = U h_i   for the token i + 1 places ahead, i = 1 ... k - 1;   W_i (D, D)

h is what the next-token head reads and U that head's own matrix, so that k tokens cost (k - 1)(D^2 + D) parameters, as in
brandon-tiny (the paper has a transformer layer a head). Targets come from `tinycore.targets.ahead`, never across documents.
The losses are named mtp_2 ... mtp_k; "lm" stays the next token's alone and is what is validated.

A small model cannot do it all at once: with all tokens counted alike the next one is learned far later (docs/routing.md), so
`weight` is a tenth, as in DeepSeek-V3 (arXiv 2412.19437: .3 shared by the heads).

Curriculum (arXiv 2505.22757): `forward` begins with the next token and adds a head at each of k - 1 even steps of the first
`ramp` of training, `reverse` begins with all and takes them away. A head that is switched off computes nothing.

In generation the heads guess the tokens that the model then checks in one pass: `tinycore.generate(..., speculative=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import Aux, HeadConfig, Scope
from tinycore.heads.head import Head, HeadOutput, Question, Vocabulary
from tinycore.linears.dense import Dense
from tinycore.norms.rms import RMSNorm
from tinycore.targets import ahead

MOST = 16


class MultiTokenHead(Head):
    """Reads the final hidden states (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadConfig, kind="mtp"):
        exempt: ClassVar[Mapping[str, str]] = {
            "flops": "with targets it multiplies what a pass without them does not: counted in test_mtp",
        }
        tokens: int = field(default=4, metadata={"help": "tokens that are predicted at once, the next one included"})
        weight: float = field(
            default=0.1,
            metadata={"help": "factor on the loss of each further token; 1 = all count alike, as published"},
        )
        curriculum: Literal["none", "forward", "reverse"] = field(
            default="none", metadata={"help": "add heads while training goes on, or take them away"}
        )
        ramp: float = field(default=0.4, metadata={"help": "share of the training steps that a curriculum takes"})

        def __post_init__(self) -> None:
            if not 2 <= self.tokens <= MOST:
                raise ConfigError(f"tokens: {self.tokens} is not between 2 and {MOST}; one token is what 'lm' predicts")
            if not self.weight > 0:
                raise ConfigError(f"weight: {self.weight} is not positive; leave the head out instead")
            if not 0 < self.ramp <= 1:
                raise ConfigError(f"ramp: {self.ramp} is not above 0 and at most 1")

        def check(self, scope: Scope, tied: bool, causal: bool) -> None:
            if not causal:
                raise ConfigError("kind: mtp looks ahead of a causal model; this one predicts in place; leave it out")

        def build(self, scope: Scope, embed: nn.Module, tied: bool) -> MultiTokenHead:
            return MultiTokenHead(self, scope)

        def cost(self, scope: Scope, tied: bool) -> Cost:
            heads, dim = self.tokens - 1, scope.dim
            # the norm's input and output of each head, and the gradient of its hidden states
            return Cost(
                parameters=heads * (dim**2 + dim),
                flops={"mtp": 2.0 * heads * dim * (dim + scope.vocab_size)},
                saved=heads * (4.0 * (2 * dim + 1) + scope.product_bytes * dim),
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.config = config
        self.heads = nn.ModuleList(
            nn.Sequential(Dense(scope.dim, scope.dim, False, 1.0), RMSNorm(scope.dim, scope.norm.eps))
            for _ in range(config.tokens - 1)
        )
        self.active = len(self.heads)

    def schedule(self, progress: float) -> None:
        """How many heads are on after this share of training, as the curriculum says."""
        config, heads = self.config, len(self.heads)
        if config.curriculum == "none":
            return
        reached = min(heads, int(heads * progress / config.ramp + 1e-9))
        self.active = reached if config.curriculum == "forward" else heads - reached

    def dormant(self) -> list[str]:
        """Parameters of the heads that are switched off."""
        off = [f"heads.{index}." for index in range(self.active, len(self.heads))]
        return [name for name, _ in self.named_parameters() if name.startswith(tuple(off))]

    def forward(self, question: Question) -> HeadOutput:
        losses: Aux = {}
        stats: Aux = {}
        targets, (embed, lm) = question.targets, question.vocabulary
        if targets is None:
            return HeadOutput(losses, stats)
        active = self.active if self.training else len(self.heads)
        for steps, head in enumerate(list(self.heads)[:active], 1):
            wanted = ahead(targets, question.ctx.documents, steps)
            total, count, correct = lm.loss(head(question.tapped["final"]), embed, wanted)
            losses[f"mtp_{steps + 1}"] = (self.config.weight * total, count)
            stats[f"mtp_{steps + 1}/accuracy"] = (correct, count)
        return HeadOutput(losses, stats)

    def draft(self, hidden: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The likeliest tokens 2 ... k places ahead of final hidden states (B, D): (B, k - 1) ids."""
        states = torch.stack([head(hidden) for head in self.heads], dim=1)
        return vocabulary.lm.logits(states, vocabulary.embed).argmax(-1)
