"""What each token of an attention layer may read, as first visible slots or as a mask; shared by the layers of a pass."""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.context import Context
from tinycore.mixers.key_values import KeyValueState


def first_visible(ctx: Context, length: int, window: int) -> Tensor | None:
    """Each token's first visible slot (B or 1, T) in a contiguous context, None where that is 0 for all."""
    if window >= length:
        return ctx.starts
    key = ("starts", window)
    if key not in ctx.memo:
        recent = (torch.arange(length, device=ctx.positions.device) - window + 1).clamp(min=0)[None]
        ctx.memo[key] = recent if ctx.starts is None else torch.maximum(ctx.starts, recent)
    return ctx.memo[key]


def same_document(ctx: Context) -> Tensor | None:
    """What each token may read where it sees its whole document: (B, 1, T, T) bool, or None for everything."""
    if ctx.documents is None:
        return None
    if "document" not in ctx.memo:
        ctx.memo["document"] = (ctx.documents[:, :, None] == ctx.documents[:, None, :])[:, None]
    return ctx.memo["document"]


def visible(
    ctx: Context, positions: Tensor, past: KeyValueState | None, seen: KeyValueState, window: int | None
) -> tuple[Tensor | None, bool]:
    """What each token may read: (mask (B or 1, 1, T, S) or None, whether plain causality says it all)."""
    length, total = positions.shape[1], seen.keys.shape[2]
    windowed = window is not None and (total > window or ctx.gaps)
    if seen.documents is None and not windowed:
        if length == total:
            return None, True
        if length == 1:
            return None, False
    key = ("mask", window) if past is None else None
    if key is not None and key in ctx.memo:
        return ctx.memo[key], False
    # keys stand in the order of their arrival, so the slot decides what is past, whatever the rows' positions
    mask = torch.ones(length, total, dtype=torch.bool, device=positions.device).tril(total - length)[None]
    if windowed:
        mask = mask & (positions[:, :, None] - seen.positions[:, None, :] < window)
    if seen.documents is not None:
        own = seen.documents[:, total - length :]
        mask = mask & (own[:, :, None] == seen.documents[:, None, :])
    mask = mask[:, None]
    if key is not None:
        ctx.memo[key] = mask
    return mask, False
