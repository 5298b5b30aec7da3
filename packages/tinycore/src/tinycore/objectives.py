"""Objectives: what a training step computes.

An objective is a generator of `(losses, step)`. The trainer runs a backward pass at each yield and an optimizer step
after those whose `step` is true (only before a step are gradients exchanged between processes). `losses` maps a name to
`(sum, count)`: sums are over this micro-batch; the trainer divides by the count of the whole accumulation window.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

Losses = dict[str, tuple[Tensor, Tensor]]


def next_token(
    model: nn.Module, tokens: Tensor, targets: Tensor, doc_ids: Tensor | None = None, routes: Tensor | None = None
) -> Iterator[tuple[Losses, bool]]:
    """The language-model objective: one forward pass, one backward, one step."""
    yield model(tokens, targets=targets, doc_ids=doc_ids, routes=routes).losses, True
