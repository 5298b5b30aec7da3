"""The short depthwise convolution over time with SiLU that stands before a selective scan (Mamba, arXiv 2312.00752):

    y_t = silu(bias + sum_{j=0}^{W-1} weight[:, W-1-j] * x_{t-j})        per channel

Causal: x_{t-j} is the j-th token before t of t's own document, padding skipped; before a document's first token stand
zeros. A row may go on from the W - 1 newest tokens of its document so far (`previous`). Where rows are single documents
the taps are shifts of the row; else `taps` says for every token where they are. The backward pass is written out: it keeps
x alone, and where several tokens read one it gathers instead of scattering.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinycore.ops import kernels
from tinycore.ops.documents import PADDING, document_after


class Taps(NamedTuple):
    """Slots in rows of W + T slots laid end to end; a row is one of zeros, W - 1 of tokens before, T of tokens."""

    earlier: Tensor  # (W - 1, B T): the j-th token before each, j = 1 .. W - 1
    newest: Tensor  # (B, W - 1): the newest tokens of the document in which the row ends, oldest first


def taps(documents: Tensor, current: Tensor | None, width: int) -> Taps:
    """Where the taps of packed rows are. documents (B, T), -1 = padding; current (B,): that of the tokens before."""
    rows, length = documents.shape
    after = document_after(documents, current)
    if current is None:
        current = torch.full_like(after, PADDING)
    own = torch.cat([current[:, None].expand(rows, width - 1), documents], 1)  # of the slots but the first
    valid = torch.cat([torch.ones_like(own[:, : width - 1], dtype=torch.bool), documents != PADDING], 1)
    rank = valid.cumsum(1)  # a token's number among those that are not padding, from 1 on
    slots = torch.arange(1, width + length, device=documents.device).expand_as(own)
    by_rank = torch.zeros(rows, width + length, dtype=torch.long, device=documents.device)
    by_rank.scatter_(1, torch.where(valid, rank, 0), torch.where(valid, slots, 0))
    own = torch.cat([torch.full_like(own[:, :1], PADDING), own], 1)
    base = torch.arange(rows, device=documents.device)[:, None] * (width + length)

    def at(ranks: Tensor, document: Tensor) -> Tensor:
        """The slots of the tokens at `ranks` where they are of `document`, else the slot of zeros."""
        found = by_rank.gather(1, ranks.clamp(min=0))
        return base + torch.where((own.gather(1, found) == document) & (document != PADDING), found, 0)

    earlier = [at(rank[:, width - 1 :] - j, documents) for j in range(1, width)]
    newest = at(rank[:, -1:] - torch.arange(width - 2, -1, -1, device=documents.device), after[:, None])
    return Taps(torch.stack(earlier).flatten(1), newest)


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, previous: Tensor | None = None, where: Taps | None = None
) -> Tensor:
    """x (B, T, C), weight (C, W) with W > 1, bias (C,), previous (B, W - 1, C) oldest first -> y (B, T, C) in x's dtype.

    where: `taps` of rows that are packed or padded. Sums are at least float32. Differentiable once.
    """
    if where is None and kernels.usable(x):
        return kernels.tinykernels.causal_conv1d(x, weight, bias, "silu", previous)[0]
    return _CausalConv1d.apply(x, weight, bias, previous, None if where is None else where.earlier)


def newest_inputs(x: Tensor, width: int, previous: Tensor | None = None, where: Taps | None = None) -> Tensor:
    """What the next call of `causal_conv1d` needs as `previous` (B, W - 1, C)."""
    if where is None and x.shape[1] >= width - 1:
        return x[:, x.shape[1] - (width - 1) :].clone()
    slots = _slots(x, width, previous, x.dtype)
    return slots[:, 1 - width :].clone() if where is None else slots.flatten(0, 1)[where.newest]


class _CausalConv1d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, previous: Tensor | None, earlier: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, previous, earlier)
        width = weight.shape[1]
        sums = _sums(_slots(x, width, previous, _wide(x)), weight, bias, earlier)
        return F.silu(sums).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, previous, earlier = ctx.saved_tensors
        width = weight.shape[1]
        slots = _slots(x, width, previous, _wide(x))
        grad = torch.ops.aten.silu_backward(grad.to(slots.dtype), _sums(slots, weight, bias, earlier))
        matrix = weight.to(slots.dtype)
        grad_slots = torch.zeros_like(slots)
        grad_slots[:, width:] = grad * matrix[:, -1]
        grad_weight = [(grad * slots[:, width:]).sum((0, 1))]
        tokens = torch.arange(grad.shape[0] * grad.shape[1], device=x.device)
        zero = torch.cat([grad.flatten(0, 1), torch.zeros_like(grad[0, :1])]) if earlier is not None else grad
        for j in range(1, width):
            tap = matrix[:, -1 - j]
            grad_weight.append((grad * _earlier(slots, width, j, earlier)).sum((0, 1)))
            if earlier is None:
                grad_slots[:, width - j : grad_slots.shape[1] - j].addcmul_(grad, tap)
            else:  # the j-th token after each slot is one or none
                later = torch.full((slots.shape[0] * slots.shape[1],), len(tokens), device=x.device)
                later = later.scatter(0, earlier[j - 1], tokens)
                grad_slots.addcmul_(zero[later].view_as(slots), tap)
        return (
            grad_slots[:, width:].to(x.dtype),
            torch.stack(grad_weight[::-1], 1).to(weight.dtype),
            grad.sum((0, 1)).to(bias.dtype),
            None if previous is None else grad_slots[:, 1:width].to(previous.dtype),
            None,
        )


def _slots(x: Tensor, width: int, previous: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(B, W + T, C): zeros, the W - 1 tokens before (or zeros), the tokens."""
    rows, length, channels = x.shape
    slots = x.new_empty(rows, width + length, channels, dtype=dtype)
    slots[:, : 1 if previous is not None else width] = 0
    if previous is not None:
        slots[:, 1:width] = previous
    slots[:, width:] = x
    return slots


def _earlier(slots: Tensor, width: int, j: int, earlier: Tensor | None) -> Tensor:
    """The j-th token before each (B, T, C)."""
    rows, total, channels = slots.shape
    if earlier is None:
        return slots[:, width - j : total - j]
    return slots.flatten(0, 1).index_select(0, earlier[j - 1]).view(rows, total - width, channels)


def _sums(slots: Tensor, weight: Tensor, bias: Tensor, earlier: Tensor | None) -> Tensor:
    width, matrix = weight.shape[1], weight.to(slots.dtype)
    y = torch.addcmul(bias.to(slots.dtype), slots[:, width:], matrix[:, -1])
    for j in range(1, width):
        y.addcmul_(_earlier(slots, width, j, earlier), matrix[:, -1 - j])
    return y


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
