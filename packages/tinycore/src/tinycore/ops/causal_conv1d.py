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

BLOCK = 2**19  # elements of one array that are taken at a time, 2 MB of float32


class Taps(NamedTuple):
    """Slots of a row: one of zeros, W - 1 of tokens before, T of tokens."""

    earlier: Tensor  # (W - 1, B, T): the j-th token before each, j = 1 .. W - 1
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

    def at(ranks: Tensor, document: Tensor) -> Tensor:
        """The slots of the tokens at `ranks` where they are of `document`, else the slot of zeros."""
        found = by_rank.gather(1, ranks.clamp(min=0))
        return torch.where((own.gather(1, found) == document) & (document != PADDING), found, 0)

    earlier = [at(rank[:, width - 1 :] - j, documents) for j in range(1, width)]
    newest = at(rank[:, -1:] - torch.arange(width - 2, -1, -1, device=documents.device), after[:, None])
    return Taps(torch.stack(earlier), newest)


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
    if where is None:
        return slots[:, 1 - width :].clone()
    return slots.gather(1, where.newest[..., None].expand(-1, -1, x.shape[2]))


class _CausalConv1d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, previous: Tensor | None, earlier: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, previous, earlier)
        y = x.new_empty(x.shape)
        for rows, channels in _blocks(x):
            block = _Block(x, weight, previous, earlier, rows, channels)
            y[rows, :, channels] = F.silu(block.sums(bias, channels), inplace=True)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, previous, earlier = ctx.saved_tensors
        width = weight.shape[1]
        grad_x, grad_previous = x.new_empty(x.shape), None if previous is None else previous.new_empty(previous.shape)
        grad_weight, grad_bias = (torch.zeros_like(t, dtype=_wide(x)) for t in (weight, bias))
        for rows, channels in _blocks(x):
            block = _Block(x, weight, previous, earlier, rows, channels)
            upstream = grad[rows, :, channels].to(grad_weight.dtype)
            upstream = torch.ops.aten.silu_backward(upstream, block.sums(bias, channels))
            of_slots = block.gradients(upstream, grad_weight[channels])
            grad_bias[channels] += upstream.sum((0, 1))
            grad_x[rows, :, channels] = of_slots[:, width:]
            if grad_previous is not None:
                grad_previous[rows, :, channels] = of_slots[:, 1:width]
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_previous, None


class _Block:
    """Some rows of some channels, in at least float32."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        previous: Tensor | None,
        earlier: Tensor | None,
        rows: slice,
        channels: slice,
    ) -> None:
        self.width = weight.shape[1]
        before = None if previous is None else previous[rows, :, channels]
        self.slots = _slots(x[rows, :, channels], self.width, before, _wide(x))
        self.taps = weight[channels].to(self.slots.dtype).t().contiguous().unbind(0)[::-1]  # by age
        self.earlier = None
        if earlier is not None:  # slots of these rows laid end to end
            count, total, _ = self.slots.shape
            base = torch.arange(count, device=x.device)[:, None] * total
            self.earlier = (earlier[:, rows] + base).flatten(1)

    def inputs(self, age: int) -> Tensor:
        """The token so many tokens before each (r, T, c)."""
        rows, total, channels = self.slots.shape
        if age == 0 or self.earlier is None:
            return self.slots[:, self.width - age : total - age]
        return self.slots.flatten(0, 1).index_select(0, self.earlier[age - 1]).view(rows, total - self.width, channels)

    def sums(self, bias: Tensor, channels: slice) -> Tensor:
        """The convolution (r, T, c)."""
        y = torch.addcmul(bias[channels].to(self.slots.dtype), self.inputs(0), self.taps[0])
        for age in range(1, self.width):
            y.addcmul_(self.inputs(age), self.taps[age])
        return y

    def gradients(self, grad: Tensor, grad_weight: Tensor) -> Tensor:
        """Those of the slots from the sums' `grad` (r, T, c); those of the taps are added to `grad_weight` (c, W)."""
        rows, length, channels = grad.shape
        of_slots = torch.zeros_like(self.slots)
        if self.earlier is not None:
            tokens = torch.arange(rows * length, device=grad.device)
            none = grad.new_zeros(1, channels)
            flat = torch.cat([grad.flatten(0, 1), none])
        for age, tap in enumerate(self.taps):
            grad_weight[:, -1 - age] += (grad * self.inputs(age)).sum((0, 1))
            if age == 0 or self.earlier is None:
                of_slots[:, self.width - age : of_slots.shape[1] - age].addcmul_(grad, tap)
            else:  # so many tokens after a slot there is one token or none
                later = torch.full((rows * of_slots.shape[1],), len(tokens), device=grad.device)
                later = later.scatter(0, self.earlier[age - 1], tokens)
                of_slots.addcmul_(flat.index_select(0, later).view_as(of_slots), tap)
        return of_slots


def _blocks(x: Tensor) -> list[tuple[slice, slice]]:
    """Rows and channels that are taken at a time: on a CPU as many as stay in cache, else all."""
    count, length, channels = x.shape
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [(slice(0, count), slice(0, channels))]
    rows = max(1, BLOCK // (length * channels))
    width = min(channels, max(64, BLOCK // length))
    return [
        (slice(row, min(row + rows, count)), slice(begin, min(begin + width, channels)))
        for row in range(0, count, rows)
        for begin in range(0, channels, width)
    ]


def _slots(x: Tensor, width: int, previous: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(B, W + T, C): zeros, the W - 1 tokens before (or zeros), the tokens."""
    rows, length, channels = x.shape
    slots = x.new_empty(rows, width + length, channels, dtype=dtype)
    slots[:, : 1 if previous is not None else width] = 0
    if previous is not None:
        slots[:, 1:width] = previous
    slots[:, width:] = x
    return slots


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
