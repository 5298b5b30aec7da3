"""Groups of neighbouring tokens of one document: which tokens close one, what is in it, who may read it.

A group ends with the token that closes it and begins behind the one before, at most `size` tokens earlier; a document begins
a group. What is made of a group may be read from the token on that closes it (or from the one after, with `lag`), so nothing
comes from later tokens. Groups of packed documents are apart; the tokens of an open group are kept for the next chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinycore.context import PADDING, Context, contiguous_starts
from tinycore.mixers.compaction import Compaction, newest, take


class GroupState(NamedTuple):
    """What stands at the end of a chunk, row by row."""

    tokens: Tensor  # (B, size - 1, D), the newest ones
    open: Tensor  # (B,) int64, tokens of the row's document behind its newest group
    closed: Tensor  # (B,) int64, its groups so far
    output: Tensor  # (B, D), what was made of the newest


class Groups(NamedTuple):
    """G groups of each row, of which some may be missing at its end."""

    windows: Tensor  # (B, G, size), slots of their tokens, oldest first, among the kept ones and the chunk's
    present: Tensor  # (B, G, size) bool, false for slots of a window that are not of the group
    context: Context  # of the groups
    reads: Tensor  # (B, T), the group each token reads: below G, G = the newest one of the chunks before, G + 1 = none
    number: Tensor  # (B, T), that group's number in its document, -1 = none
    offset: Tensor  # (B, T), tokens of the document since its newest group was closed, 0 at the one that closes it
    after: tuple[
        Tensor, Tensor, Tensor
    ]  # (B,) each: open and closed of the next state, and the group whose output it has
    seen: Compaction

    def tokens(self, x: Tensor, past: GroupState | None) -> Tensor:
        """What is in the groups, of x (B, T, D): (B, G, size, D), anything where nothing is present."""
        return take(self._slots(x, past), self.windows)

    def read(self, output: Tensor, past: GroupState | None) -> Tensor:
        """What each token reads of the groups' output (B, G, D): (B, T, D), 0 where there is none yet."""
        return take(self._outputs(output, past), self.reads)

    def state(self, x: Tensor, output: Tensor, past: GroupState | None) -> GroupState:
        """What the next chunk needs, of x (B, T, D) and of the groups' output (B, G, D)."""
        still_open, closed, last = self.after
        slots = self._slots(x, past)
        kept = newest(slots, self.seen.tokens, self.windows.shape[2] - 1)
        return GroupState(kept, still_open, closed, take(self._outputs(output, past), last[:, None])[:, 0])

    def _slots(self, x: Tensor, past: GroupState | None) -> Tensor:
        size = self.windows.shape[2]
        kept = x.new_zeros(len(x), size - 1, x.shape[2]) if past is None else past.tokens.to(x.dtype)
        return torch.cat([kept, self.seen.compacted(x)], dim=1)

    def _outputs(self, output: Tensor, past: GroupState | None) -> Tensor:
        before = output.new_zeros(len(output), 1, output.shape[2])
        if past is not None:
            before = past.output[:, None].to(output.dtype)
        return torch.cat([output, before, torch.zeros_like(before)], dim=1)


def starts(seen: Compaction) -> Tensor:
    """The slot (B, T) in which each compacted token's document begins, -1 = in a chunk before."""
    slots = torch.arange(seen.positions.shape[1], device=seen.positions.device)
    return torch.where(seen.valid & (seen.positions == 0), slots, -1).cummax(1).values


def since(marks: Tensor, begun: Tensor, before: Tensor) -> Tensor:
    """How many tokens of its document stand behind the newest mark up to each compacted token (B, T), itself included: 0 at a
    mark. before (B,): those that stand so at the end of the chunks before."""
    slots = torch.arange(marks.shape[1], device=marks.device)
    newest_mark = torch.where(marks, slots, -1).cummax(1).values
    origin = torch.maximum(newest_mark, begun - 1)
    unknown = (newest_mark < 0) & (begun < 0)
    return slots - origin + torch.where(unknown, before[:, None], 0)


def group(
    ctx: Context,
    seen: Compaction,
    closes: Tensor,
    size: int,
    past: GroupState | None,
    lag: bool = False,
    count: int | None = None,
) -> Groups:
    """The groups of a chunk, given which compacted tokens close one, (B, T) bool, false at padding.

    count: how many groups each row has, where all have as many and that is known; else it is looked up, in a graph taken to be
    as many as tokens.
    """
    rows, length = closes.shape
    nothing = seen.tokens.new_zeros(rows)
    open_before, closed_before = (nothing, nothing) if past is None else (past.open, past.closed)
    begun = starts(seen)
    opened = since(closes, begun, open_before)
    # of the token before: how many of its document stand in the group that this one closes, if it does
    fresh = seen.positions == 0
    earlier = (
        F.pad(opened[:, :-1], (1, 0)) if past is None else torch.cat([open_before[:, None], opened[:, :-1]], dim=1)
    )
    lengths = torch.where(fresh, 0, earlier) + 1
    running = closes.long().cumsum(1)
    base = F.pad(running, (1, 0)).gather(1, begun.clamp(min=0))
    in_document = running - base + torch.where(begun < 0, closed_before[:, None], 0)  # closed so far

    total = count if count is not None else _most(running, length)
    order = torch.argsort((~closes).long(), dim=1, stable=True)[:, :total]
    exists = torch.arange(total, device=closes.device) < running[:, -1:]
    places = torch.arange(size, device=closes.device)
    windows = order[..., None] + places
    present = (places >= size - lengths.gather(1, order)[..., None]) & exists[..., None]

    reads = _readable(running, running - 1, order, begun, in_document, total)
    last = (seen.tokens - 1).clamp(min=0)[:, None]
    some = seen.tokens > 0
    newest_group = torch.where(some, reads.gather(1, last)[:, 0], total)
    readable = in_document - closes.long() if lag else in_document
    if lag:
        reads = _readable(running, running - closes.long() - 1, order, begun, in_document - closes.long(), total)
    after = (
        torch.where(some, opened.gather(1, last)[:, 0], open_before),
        torch.where(some, in_document.gather(1, last)[:, 0], closed_before),
        newest_group,
    )
    number = (in_document - 1).gather(1, order)
    context = _context(ctx, seen, order, exists, number, past is None, count is not None)
    reads = torch.where(seen.valid, reads, total + 1)
    readable = torch.where(reads <= total, readable - 1, -1)
    reads, opened, readable = (seen.restored(part) for part in (reads, opened, readable))
    return Groups(windows, present, context, reads, readable, opened.clamp(0, size - 1), after, seen)


def _most(running: Tensor, length: int) -> int:
    """How many groups the row with most of them has."""
    if torch.compiler.is_compiling():
        return length
    return int(running[:, -1].max()) if len(running) else 0


def _readable(running: Tensor, index: Tensor, order: Tensor, begun: Tensor, in_document: Tensor, total: int) -> Tensor:
    """`Groups.reads` of compacted tokens: group `index` of the row if that is of the token's document."""
    before_chunk = torch.where((begun < 0) & (in_document > 0), total, total + 1)
    if not total:
        return before_chunk
    at = order.gather(1, index.clamp(0, total - 1))
    return torch.where(index < 0, before_chunk, torch.where(at >= begun, index, total + 1))


def _context(
    ctx: Context, seen: Compaction, order: Tensor, exists: Tensor, number: Tensor, fresh: bool, whole: bool
) -> Context:
    """Groups stand at their numbers in their documents."""
    routes = None if ctx.routes is None else seen.compacted(ctx.routes).gather(1, order)
    if ctx.documents is None and whole:
        positions = torch.arange(number.shape[1], device=number.device)[None] if fresh else number
        return Context(positions, contiguous=fresh, routes=routes)
    ids = torch.zeros_like(number) if ctx.documents is None else seen.compacted(ctx.documents).gather(1, order)
    documents = torch.where(exists, ids, PADDING)
    positions = torch.where(exists, number, 0)
    first = contiguous_starts(documents, positions) if fresh else None
    return Context(positions, documents, first is not None, first, routes)
