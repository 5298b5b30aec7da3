"""Predicting what comes next as a meaning instead of as words: a joint embedding (JEPA, arXiv 2301.08243; 2512.10942).

    y_t = unit(W' mean of E'[x_{t+1}] ... E'[x_{t+s}])                   the target: the next s tokens
    z_t = unit(P(W norm(h_t))),   P(a) = B silu(A a)                     the prediction, from the stream at `tap`
    S_ij = z_i . y_j / tau over N anchors;   loss = (CE(S, i) + CE(S^T, i)) / 2      (InfoNCE, both ways)

E' and W' are averages of the embedding E and of W that follow them after every optimizer step, with a momentum that rises from
`momentum` to 1: no gradient reaches the target. Negatives are the spans of other documents of the micro-batch. Targets may
see the future, predictions may not, and logits read neither: what is causal stays so. tau is learned, at least .01.

Anchors are `samples` evenly spaced tokens whose next s tokens all stand in their document. With all similarities equal the loss
is ln N, N the spans that an anchor is compared with. `target_std`, the mean over channels of the targets' deviation (times
sqrt(width)), falls to 0 where targets collapse; 1 is what independent directions have.

The seed draws a predictor inside every block; this is one, at a tap. `weight` (alpha) of this loss and `heads.lm.weight` (beta)
of the cross-entropy make the seed's hybrid loss. Its third term compares a model's report of itself with what was measured
of it, for which there is no head yet: `consistency` (gamma) is refused unless 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import HeadConfig, Scope
from tinycore.heads.head import Head, HeadOutput, Question, Vocabulary
from tinycore.linears.dense import Dense
from tinycore.losses.contrastive import info_nce
from tinycore.ops.rms_norm import EPSILON, rms_norm
from tinycore.targets import IGNORED, ahead

LEAST_TEMPERATURE = 0.01


class JointEmbedding(Head):
    """Reads the stream at its tap, (B, T, D); without targets it gives the predictions (B, T, width) as a value."""

    token_rows: ClassVar[tuple[str, ...]] = ("target_table",)

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadConfig, kind="jepa"):
        exempt: ClassVar[Mapping[str, str]] = {
            "flops": "in training it predicts a sample of the tokens: counted in test_jepa",
        }
        tap: str = field(default="final", metadata={"help": "call whose output it reads, or final"})
        span: int = field(default=8, metadata={"help": "tokens of what comes next"})
        width: int | None = field(default=None, metadata={"help": "channels of the embedding; null = the model's dim"})
        samples: int = field(default=256, metadata={"help": "anchors of a micro-batch, at most"})
        temperature: float = field(default=0.07, metadata={"help": "of the similarities, at the start; learned"})
        momentum: float = field(
            default=0.996, metadata={"help": "of the targets' averages, at the start; 1 at the end"}
        )
        weight: float = field(default=0.1, metadata={"help": "factor on the loss (alpha); 0 = compute nothing"})
        consistency: float = field(default=0.0, metadata={"help": "factor on the self-report's loss (gamma); only 0"})

        def __post_init__(self) -> None:
            for name in ("span", "samples"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not positive")
            if self.width is not None and self.width < 1:
                raise ConfigError(f"width: {self.width} is not positive")
            if self.temperature < LEAST_TEMPERATURE:
                raise ConfigError(f"temperature: {self.temperature} is below {LEAST_TEMPERATURE}")
            if not 0 <= self.momentum < 1:
                raise ConfigError(f"momentum: {self.momentum} is not at least 0 and below 1")
            if self.weight < 0:
                raise ConfigError(f"weight: {self.weight} is negative")
            if self.consistency:
                raise ConfigError(
                    "consistency: compares the report of an introspection head, which does not exist yet; set it to 0"
                )

        def check(self, scope: Scope, tied: bool, causal: bool) -> None:
            if not causal:
                raise ConfigError("kind: jepa predicts what comes next; this model sees it, it predicts in place")

        @property
        def taps(self) -> tuple[str, ...]:
            return (self.tap,)

        def size(self, scope: Scope) -> int:
            """Channels of the embedding."""
            return self.width or scope.dim

        def build(self, scope: Scope, embed: nn.Module, tied: bool) -> JointEmbedding:
            return JointEmbedding(self, scope, embed)

        def cost(self, scope: Scope, tied: bool) -> Cost:
            width = self.size(scope)
            products = scope.row_dim * width + 2 * width**2
            tokens = scope.rows * scope.max_seq_len
            share = min(1.0, self.samples / tokens) if self.weight else 0.0
            return Cost(
                parameters=products + 1,
                flops={"jepa": 2.0 * products},
                saved=share * 4.0 * (2 * scope.dim + 5 * width),
                held=4 * (2 * min(self.samples, tokens)) ** 2 if self.weight else 0,
            )

    def __init__(self, config: Config, scope: Scope, embed: nn.Module) -> None:
        super().__init__()
        self.config, width = config, config.size(scope)
        self.project = Dense(scope.row_dim, width, False, 1.0)
        self.enter, self.leave = Dense(width, width, False, 1.0), Dense(width, width, False, 1.0)
        self.log_temperature = nn.Parameter(torch.tensor(config.temperature).log())
        self.momentum = config.momentum
        self.target_table: Tensor
        self.target_project: Tensor
        self.register_buffer("target_table", embed.get_parameter("weight").detach().clone())
        self.register_buffer("target_project", self.project.weight.detach().clone())

    def schedule(self, progress: float) -> None:
        """The momentum rises to 1 along a cosine (arXiv 2006.07733)."""
        rest = (1 - self.config.momentum) * (math.cos(math.pi * progress) + 1) / 2
        self.momentum = 1 - rest

    @torch.no_grad()
    def follow(self, vocabulary: Vocabulary) -> None:
        """Move the targets' averages."""
        for average, weight in (
            (self.target_table, vocabulary.embed.weight),
            (self.target_project, self.project.weight),
        ):
            average.lerp_(weight.to(average.dtype), 1 - self.momentum)

    def forward(self, question: Question) -> HeadOutput:
        targets, documents, vocabulary = question.targets, question.ctx.documents, question.vocabulary
        x = question.tapped[self.config.tap]
        if targets is None:
            return HeadOutput({}, {}, value=self.predict(x, vocabulary))
        if not self.config.weight:
            return HeadOutput({}, {})
        rows, length = targets.shape
        count = min(self.config.samples, rows * length)
        at = torch.arange(count, device=x.device) * (rows * length) // count
        spans = torch.stack([ahead(targets, documents, step).flatten()[at] for step in range(self.config.span)], 1)
        present = (spans != IGNORED).all(1)
        own = torch.div(at, length, rounding_mode="floor")
        ids = torch.zeros_like(at) if documents is None else documents.flatten()[at]
        same = (own[:, None] == own) & (ids[:, None] == ids)
        predicted, target = self.predict(x.flatten(0, 1)[at], vocabulary), self._targets(spans)
        temperature = self.log_temperature.exp().clamp(min=LEAST_TEMPERATURE)
        loss, hits, number = info_nce(predicted, target, temperature, present, same)
        return HeadOutput(
            {"jepa": (self.config.weight * loss, number)},
            {
                "jepa/loss": (loss.detach(), number),
                "jepa/retrieval": (hits, number),
                "jepa/target_std": (_spread(target, present) * number, number),
            },
        )

    def predict(self, x: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Unit vectors (..., width) of the stream x (..., D)."""
        inner = self.project(vocabulary.embed.as_row(rms_norm(x, None, EPSILON)))
        return F.normalize(self.leave(F.silu(self.enter(inner))), dim=-1)

    @torch.no_grad()
    def _targets(self, spans: Tensor) -> Tensor:
        """Unit vectors (N, width) of spans (N, s) of tokens; those with tokens that are not there give anything."""
        mean = F.embedding(spans.clamp(min=0), self.target_table).mean(1)
        return F.normalize(F.linear(mean, self.target_project), dim=-1)


def _spread(target: Tensor, present: Tensor) -> Tensor:
    """sqrt(width) times the mean over channels of the deviation of target (N, width) where present (N,)."""
    weight = present.to(target.dtype)[:, None]
    number = weight.sum().clamp(min=1)
    mean = (target * weight).sum(0) / number
    variance = ((target - mean).square() * weight).sum(0) / number
    return variance.sqrt().mean() * target.shape[1] ** 0.5
