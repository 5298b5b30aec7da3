"""Bytes for a Byte Latent Transformer (arXiv 2412.09871): hashed n-grams beside each byte, and how surprising the next one is.

    x_t = E[b_t] + mean over n of H_n[hash(b_{t-n+1} ... b_t)]          H_n (buckets, D), zero at the start
    judge: a language model of `dim` channels of its own;   entropy_t = H(p(b_{t+1} | b_1 ... b_t))

n-grams are of one document; the first n - 1 bytes of one have none. The judge decides where patches of bytes end, which depth
`pooled` with `boundaries: judge` makes vectors of (there is the rest of the architecture). It learns next bytes by a loss of
its own ("judge"), together with the model it judges for, and no gradient goes from one to the other; the paper trains it
beforehand. Tokens are bytes where the tokenizer has no merges (`data.tokenizer: {kind: train, vocab_size: 272}`); with other
tokens all of this works as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.embed.judge import Judge, JudgeConfig
from tinycore.embed.table import INITIAL_STD
from tinycore.families import EmbedConfig, Scope
from tinycore.mixers.compaction import compaction, newest
from tinycore.ops.entropy import entropy
from tinycore.ops.linear_cross_entropy import linear_cross_entropy
from tinycore.state import State

ENTROPY = "entropy"  # of the carry: (B, T), in nats
MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed number (Knuth)


class NgramState(NamedTuple):
    """The newest tokens of each row."""

    tokens: Tensor  # (B, longest n - 1) int64


class Embedded(NamedTuple):
    """x (B, T, D); what travels up beside it; what the judge thought, (B, T, dim); what the next chunk needs."""

    x: Tensor
    carry: dict[str, Tensor]
    judged: Tensor
    state: State | None


class ByteEmbedding(nn.Module):
    """See the module's docstring. Called with the context and the state as well."""

    registers: None = None

    @dataclass(frozen=True, kw_only=True)
    class Config(EmbedConfig, kind="blt"):
        exempt: ClassVar[Mapping[str, str]] = {
            "flops": "reads the judge's entropies where no graph is built, and its loss where one is: counted in test_blt",
        }
        reads_past: ClassVar[bool] = True
        judges: ClassVar[bool] = True
        scale: float = field(default=1.0, metadata={"help": "factor on the embedding"})
        ngrams: tuple[int, ...] = field(default=(3, 4, 5, 6, 7, 8), metadata={"help": "lengths of n-grams; [] = none"})
        buckets: int = field(default=2048, metadata={"help": "rows of the table of each length"})
        judge: JudgeConfig = field(default_factory=JudgeConfig)

        def __post_init__(self) -> None:
            if self.scale <= 0:
                raise ConfigError(f"scale: {self.scale} is not positive")
            if any(not 2 <= n <= 16 for n in self.ngrams) or len(set(self.ngrams)) != len(self.ngrams):
                raise ConfigError(f"ngrams: {list(self.ngrams)} are not different lengths from 2 to 16")
            if self.buckets < 1:
                raise ConfigError(f"buckets: {self.buckets} is not positive")

        def build(self, scope: Scope) -> ByteEmbedding:
            return ByteEmbedding(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            rows = scope.vocab_size + len(self.ngrams) * self.buckets
            own = Cost(parameters=rows * scope.dim, saved=8.0 * (1 + len(self.ngrams)))
            return own + self.judge.cost(scope, length)

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.config, self.vocab_size = config, scope.vocab_size
        self.weight = nn.Parameter(torch.empty(scope.vocab_size, scope.dim))
        nn.init.normal_(self.weight, std=INITIAL_STD)
        self.undecayed = ("weight", "grams") if config.ngrams else ("weight",)
        self.grams = (
            nn.Parameter(torch.zeros(len(config.ngrams) * config.buckets, scope.dim)) if config.ngrams else None
        )
        self.judge = Judge(config.judge, scope)

    def as_row(self, hidden: Tensor) -> Tensor:
        """See `Table`."""
        return hidden

    def forward(self, tokens: Tensor, ctx: Context, state: State | None) -> Embedded:
        """Tokens (B, T) that go on after `state`, None where nothing is kept."""
        calls = Calls(self.judge.layers, ctx, state, frozenset(), "none")
        x = F.embedding(tokens, self.weight)
        if self.grams is not None:
            x = x + self._grams(tokens, calls)
        judged = self.judge(tokens, calls)
        surprise = entropy(judged.detach(), self.judge.logits, self.vocab_size)
        return Embedded(
            x if self.config.scale == 1.0 else x * self.config.scale, {ENTROPY: surprise}, judged, calls.kept
        )

    def _grams(self, tokens: Tensor, calls: Calls) -> Tensor:
        """(B, T, D): the mean over lengths of the rows that n-grams up to each token hash to."""
        assert self.grams is not None
        rows, length = tokens.shape
        seen = compaction(calls.ctx, rows, length, calls.kept is not None)
        before = max(self.config.ngrams) - 1
        past: NgramState | None = calls.past("embed/ngrams")
        earlier = tokens.new_zeros(rows, before) if past is None else past.tokens
        slots = torch.cat([earlier, seen.compacted(tokens)], dim=1)
        calls.keep("embed/ngrams", NgramState(newest(slots, seen.tokens, before)))
        found = []
        for index, n in enumerate(self.config.ngrams):
            codes = slots.new_full((rows, length), n)
            for back in range(n):
                codes = (codes + slots[:, before - back : before - back + length] + 1) * MULTIPLIER
                codes = codes ^ ((codes >> 29) & (2**35 - 1))
            place = (codes & (2**62 - 1)) % self.config.buckets + index * self.config.buckets
            gram = F.embedding(place, self.grams)
            found.append(torch.where((seen.valid & (seen.positions >= n - 1))[..., None], gram, 0))
        return seen.restored(torch.stack(found).sum(0) / len(found))

    def loss(self, judged: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, number) of the judge's cross-entropy."""
        flat = self.judge.norm(judged.flatten(0, 1))
        total, number, _ = linear_cross_entropy(flat, self.judge.weight, targets.flatten(), None, None)
        return total, number
