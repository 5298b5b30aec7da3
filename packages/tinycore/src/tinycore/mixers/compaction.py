"""Rows of tokens with the padding moved behind them, for mixers that work on neighbouring slots.

In a compacted row the tokens of a document stand next to each other, so "the k-th token before this one" is k slots to the
left, and what a stream keeps of its newest tokens are the last slots before the padding. Padding stays padding and is
read by nobody. Rows without padding inside of documents need no moving.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tinycore.context import Context, begin
from tinycore.state import STREAM, StreamState


class Compaction(NamedTuple):
    """Where the slots of compacted rows come from, and what stands in them."""

    positions: Tensor  # (B, T), of the token in its document
    valid: Tensor  # (B, T) bool, false at padding
    tokens: Tensor  # (B,), how many slots are valid
    order: Tensor | None  # (B, T), the slot each comes from; None where every slot stays
    rank: Tensor | None  # (B, T), the inverse of order

    def compacted(self, x: Tensor) -> Tensor:
        """x (B, T, ...) as it stands in the row -> the same, compacted."""
        return x if self.order is None else take(x, self.order)

    def restored(self, x: Tensor) -> Tensor:
        """x (B, T, ...) compacted -> as it stands in the row."""
        return x if self.rank is None else take(x, self.rank)


def own_context(ctx: Context, rows: int, length: int, before: StreamState | None) -> tuple[Context, StreamState]:
    """The context of the tokens that a mixer has seen itself, and where its stream stands after them.

    Routing may have kept tokens from it, so the positions of the model leave gaps and need not begin at 0; these do not.
    before: where the mixer's stream stood; None = fresh. Layers that have seen the same share the result.
    """
    known = ctx.memo.setdefault("own contexts", [])
    for seen, found in known:
        if seen is (None if before is None else before.positions):
            return found
    slots = ctx.positions.expand(rows, length)
    found = begin(slots, ctx.documents, None if before is None else {STREAM: before})
    known.append((None if before is None else before.positions, found))
    return found


def compaction(ctx: Context, rows: int, length: int, kept: bool) -> Compaction:
    """How to compact the rows of `ctx`; shared by all layers of a pass. kept: whether the stream goes on from here.

    Fresh rows of contiguous documents stay as they are (their padding too) if nothing is to be kept of them.
    """
    key = ("compaction", kept)
    if key not in ctx.memo:
        ctx.memo[key] = _compaction(ctx, rows, length, kept)
    return ctx.memo[key]


def _compaction(ctx: Context, rows: int, length: int, kept: bool) -> Compaction:
    positions = ctx.positions.expand(rows, length)
    valid = ctx.valid
    if valid is None:
        valid = torch.ones_like(positions, dtype=torch.bool)
        return Compaction(positions, valid, positions.new_full((rows,), length), None, None)
    tokens = valid.long().sum(1)
    if ctx.contiguous and not kept:
        return Compaction(positions, valid, tokens, None, None)
    order = torch.argsort((~valid).long(), dim=1, stable=True)
    return Compaction(positions.gather(1, order), valid.gather(1, order), tokens, order, torch.argsort(order, dim=1))


def take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, L, ...), index (B, ...) of slots -> (B, index's other axes, x's other axes)."""
    rows, length = x.shape[:2]
    first = length * torch.arange(rows, device=x.device).view(-1, *[1] * (index.ndim - 1))
    return x.flatten(0, 1).index_select(0, (index + first).flatten()).view(*index.shape, *x.shape[2:])


def newest(x: Tensor, tokens: Tensor, count: int) -> Tensor:
    """x (B, count + T, ...): what was kept, then compacted slots, `tokens` (B,) of them valid -> the newest `count`."""
    return take(x, tokens[:, None] + torch.arange(count, device=x.device))
