"""What stood at the token before, in the same document."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tinycore.context import Context
from tinycore.mixers.compaction import compaction, newest


class Newest(NamedTuple):
    """The newest token's vector of each row."""

    x: Tensor  # (B, D)


def previous(x: Tensor, ctx: Context, before: Newest | None, kept: bool = True) -> tuple[Tensor, Newest]:
    """(x (B, T, D) of each token's predecessor, 0 at the first of a document and at padding; what the next chunk needs).

    before: the newest token of the chunks before; None in a fresh stream. kept: whether there is a next chunk.
    """
    rows, length, _ = x.shape
    seen = compaction(ctx, rows, length, kept)
    first = torch.zeros_like(x[:, :1]) if before is None else before.x[:, None].to(x.dtype)
    slots = torch.cat([first, seen.compacted(x)], dim=1)
    continues = (seen.valid & (seen.positions > 0))[..., None]
    found = seen.restored(torch.where(continues, slots[:, :-1], 0))
    return found, Newest(newest(slots, seen.tokens, 1)[:, 0])
