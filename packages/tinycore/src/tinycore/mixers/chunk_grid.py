"""Which tokens are written together into a memory, and which read it then: chunks counted from each document's start.

A document's chunk n are its tokens at positions n C to (n + 1) C - 1. It is written when its last token is there, and read
by the document's next chunk; the first chunk reads what the memory begins with. Only whole chunks are written, so a row of
T tokens has no more than T / C writes, and one more if earlier tokens wait for it: a small grid without padding, whatever
documents the row is packed of.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tinycore.context import Context
from tinycore.mixers.compaction import Compaction


class ChunkGrid(NamedTuple):
    """N writes of C tokens, and cells of R tokens that read: one per write, before them one for what was carried in.

    Slots are those of compacted rows.
    """

    written: Tensor  # (B, N, C), slots in rows that begin with the C - 1 tokens before, if anything is kept
    there: Tensor  # (B, N) bool: false where the row has fewer writes
    fresh: Tensor  # (B, N) bool: written onto what the memory begins with
    readers: Tensor  # (B, N or N + 1, R), slots; some are read in vain
    answer: Tensor  # (B, T), a token's place among the cells, flattened
    first: Tensor  # (B, T) bool: in its document's first chunk


def chunk_grid(ctx: Context, layout: Compaction, chunk: int, carried: bool, kept: bool) -> ChunkGrid:
    """The grid of compacted rows; shared by all layers of a pass. carried: whether earlier tokens have a state;
    kept: whether it goes on after these."""
    key = ("chunk grid", chunk, carried, kept)
    if key not in ctx.memo:
        ctx.memo[key] = _chunk_grid(layout, chunk, carried, kept)
    return ctx.memo[key]


def _chunk_grid(layout: Compaction, chunk: int, carried: bool, kept: bool) -> ChunkGrid:
    positions, device = layout.positions, layout.positions.device
    rows, length = positions.shape
    ends = layout.valid & (positions % chunk == chunk - 1)
    if not kept:
        ends = ends & (torch.arange(length, device=device) < length - 1)  # nothing would read the last one
    writes = (length - (not kept) + (chunk - 1 if carried else 0)) // chunk
    if device.type == "cpu" and not torch.compiler.is_compiling():
        writes = min(writes, int(ends.sum(1).max())) if rows else writes
    if not kept:
        writes = max(1, writes)  # in vain if need be: every parameter has a gradient in every batch, which DDP asks for
    slots = torch.argsort((~ends).long(), dim=1, stable=True)[:, :writes]  # (B, N)
    there = ends.gather(1, slots)
    fresh = positions.gather(1, slots) < chunk
    back = torch.arange(1 - chunk, 1, device=device) + (chunk - 1 if kept else 0)
    written = (slots[..., None] + back).clamp(min=0)

    width = min(chunk, length)
    steps = torch.arange(width, device=device)
    begins = slots + 1
    if carried:
        begins = torch.cat([torch.zeros_like(positions[:, :1]), begins], dim=1)
    readers = (begins[..., None] + steps).clamp(max=length - 1)
    before = ends.long().cumsum(1) - ends.long()  # writes in the row before each token
    place = torch.where(before == 0, torch.arange(length, device=device), positions % chunk)
    cell = before if carried else before - 1
    first = positions < chunk
    answer = torch.where(first, 0, cell * width + place)
    return ChunkGrid(written, there, fresh, readers, answer, first)
