"""What stood at the token before, in the same document."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinycore.context import Context


class Newest(NamedTuple):
    """The newest token's vector of each row."""

    x: Tensor  # (B, D)


def previous(x: Tensor, ctx: Context, before: Newest | None) -> tuple[Tensor, Newest]:
    """(x (B, T, D) of each token's predecessor, 0 at the first of a document and at padding; what the next chunk needs).

    before: the newest token of the chunks before; None in a fresh stream.
    """
    first = torch.zeros_like(x[:, 0]) if before is None else before.x.to(x.dtype)
    if ctx.documents is None:
        return torch.cat([first[:, None], x[:, :-1]], dim=1), Newest(x[:, -1])
    valid, length = ctx.documents >= 0, x.shape[1]
    newest = torch.where(valid, torch.arange(length, device=x.device), -1).cummax(1).values + 1  # 0: before the chunk
    slots = torch.cat([first[:, None], x], dim=1)
    at = F.pad(newest[:, :-1], (1, 0))[..., None].expand(-1, -1, x.shape[2])
    found = slots.gather(1, at)
    last = slots.gather(1, newest[:, -1:, None].expand(-1, -1, x.shape[2]))[:, 0]
    continues = (valid & (ctx.positions > 0))[..., None]
    return torch.where(continues, found, 0), Newest(last)
