"""DenseFormer, depth-weighted averages (arXiv 2402.02622): what block i + 1 reads is an average of all outputs so far.

    Y_i = sum_{j <= i, j = i mod dilation} a_ij X_j,   X_0 = embedding, X_j = block_j(Y_{j-1})        all (B, T, D)

X_j are the blocks' outputs before averaging; a_ii starts at 1 and the others at 0, so that a fresh model is the plain one.
With `period` p only every p-th block is followed by an average. Blocks are calls: a shared layer called twice is two of
them. Position by position, hence causal and without state.

Memory of training: every output of an averaged block is kept, and in the backward pass each has a gradient from the last
average on, so that L calls cost about 2 L tensors (B, T, D) of float32 more than plain residuals.

The weights are a vector of the entries that are read, block after block (`table: triangular`), or a matrix with a row for
each average (`rectangular`), as brandon-tiny holds them: its upper half is never read and listed as dead. That form is
there so that published parameter counts hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.families import ResidualConfig, Scope
from tinycore.residual.plain import PlainResidual


class DenseFormer(nn.Module):
    """(index, x, kept) -> (x, kept): x (B, T, D), `kept` the outputs X_0 ... X_index."""

    undecayed = ("weight",)

    @dataclass(frozen=True, kw_only=True)
    class Config(ResidualConfig, kind="denseformer"):
        joins_calls: ClassVar[bool] = True
        dilation: int = field(
            default=1, metadata={"help": "an average takes every dilation-th output, back from its own"}
        )
        period: int = field(default=1, metadata={"help": "blocks from one average to the next"})
        table: Literal["triangular", "rectangular"] = field(
            default="triangular", metadata={"help": "weights that are read only, or a matrix with a dead upper half"}
        )

        def __post_init__(self) -> None:
            for name in ("dilation", "period"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not positive")

        def check(self, scope: Scope) -> None:
            if self.period > scope.calls:
                raise ConfigError(
                    f"period: {self.period} is more than the model's {scope.calls} calls; none is averaged"
                )

        def terms(self, calls: int) -> dict[int, int]:
            """How many outputs the average after block i takes, by i = 1 ... calls."""
            return {index: index // self.dilation + 1 for index in range(self.period, calls + 1, self.period)}

        def build(self, scope: Scope) -> PlainResidual:
            return PlainResidual()

        def build_stream(self, scope: Scope) -> DenseFormer:
            return DenseFormer(self, scope.calls)

        def cost(self, scope: Scope) -> Cost:
            return Cost()

        def stream_cost(self, scope: Scope, length: int) -> Cost:
            terms = list(self.terms(scope.calls).values())
            size = sum(terms) if self.table == "triangular" else len(terms) * terms[-1]
            # kept: the output of each averaged block, beside the average, which the norm after it keeps. The last average
            # gives a gradient to each of its outputs at once; its own block's is the stream's, and what it alone kept goes
            gradients = max(0, terms[-1] - 2)
            return Cost(
                parameters=size,
                saved=4.0 * scope.dim * len(terms),
                transient=4 * scope.dim * scope.rows * length * gradients,
            )

    def __init__(self, config: Config, calls: int) -> None:
        super().__init__()
        self.dilation, self.terms = config.dilation, config.terms(calls)
        counts = list(self.terms.values())
        self.rectangular = config.table == "rectangular"
        if self.rectangular:
            weight = torch.zeros(len(counts), counts[-1])
            for row, count in zip(weight, counts, strict=True):
                row[count - 1] = 1.0
        else:
            weight = torch.cat([torch.eye(count)[-1] for count in counts])
        self.weight = nn.Parameter(weight)

    def forward(self, index: int, x: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        kept = (*kept, x)
        if index not in self.terms:
            return x, kept
        first, *others = zip(self._weights(index).unbind(), kept[index % self.dilation :: self.dilation], strict=True)
        average = first[0] * first[1]
        for weight, output in others:  # one term after the other: the outputs are kept, and nothing else of their size
            average = torch.addcmul(average, output, weight)
        return average, kept

    def _weights(self, index: int) -> Tensor:
        """a_ij of the average after block `index`, oldest output first."""
        before = [count for other, count in self.terms.items() if other < index]
        if self.rectangular:
            return self.weight[len(before), : self.terms[index]]
        return self.weight[sum(before) :][: self.terms[index]]

    def dead_entries(self) -> dict[str, Tensor]:
        """Which entries of which parameters nothing reads: masks of their shapes."""
        if not self.rectangular:
            return {}
        counts = torch.tensor(list(self.terms.values()))
        return {"weight": torch.arange(self.weight.shape[1]) >= counts[:, None]}
