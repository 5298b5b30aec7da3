"""Causal attention of whole rows, for CPUs: only the scores that count, in blocks that stay in cache.

    y[t] = sum over s in starts[t] .. t of softmax over s (c(q[t] . k[s] / sqrt(h))) v[s]
    c(x) = cap tanh(x / cap), or x where there is no cap (Gemma 2, arXiv 2408.00118)

PyTorch's fused CPU attention computes rows of up to 512 keys whole and, given a mask, everything that the mask hides.
Here a block of queries meets the keys from the first that one of them sees to its own last one, so packed documents and
windows cost what is live. The backward pass recomputes a block's scores instead of keeping them (FlashAttention, arXiv
2205.14135). Scores and softmax are at least float32, whatever the precision of q, k and v; products of probabilities
and of score gradients run in q's precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

QUERIES, BLOCKS = 64, 8  # fewest queries of a block, and how many blocks a row has where that leaves more
SCORES = 2**20  # most scores that exist at one time; three such arrays in the backward pass, 12 MB of float32


def causal_attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None = None, cap: float = 0.0) -> Tensor:
    """q (B, H, T, h), k and v (B, G, T, h), G dividing H -> (B, H, T, h).

    starts (B or 1, T) int64: the first slot that each token sees, nowhere past the token itself; None = 0 for all.
    cap: 0 = none. Query head i reads key head i // (H / G). Differentiable once with respect to q, k and v.
    """
    if torch.compiler.is_compiling():
        return _operator(q, k, v, starts, cap)
    return _BlockAttention.apply(q, k, v, starts, cap)


def block_bytes(rows: int, heads: int, length: int, cast_bytes: int) -> int:
    """Bytes of the backward pass's buffers for scores and their gradients, and of a packed row's weights and casts."""
    row = heads * _queries(length) * length
    return row * (2 * 4 * _most_rows(rows, row) + 4 + 2 * cast_bytes)


def mask_bytes(rows: int, length: int, window: int | None = None) -> int:
    """Bytes of the masks of packed rows, which all layers of a pass share: at most, where a document fills its row."""
    queries, total = _queries(length), 0
    for first in range(0, length, queries):
        size = min(queries, length - first)
        total += size * min(first + size, size + (window or length) - 1)
    return 4 * rows * total


class _BlockAttention(torch.autograd.Function):
    """What eager mode calls."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, cap: float) -> Tensor:
        y = _forward(q, k, v, starts, cap)
        ctx.save_for_backward(q, k, v, y, starts)
        ctx.cap = cap
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_backward(grad, *ctx.saved_tensors, ctx.cap), None, None


@torch.library.custom_op("tinycore::block_attention", mutates_args=())
def _operator(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, cap: float) -> Tensor:
    """What a compiled graph calls: which blocks there are depends on the documents, so the graph must not look inside."""
    return _forward(q, k, v, starts, cap)


@torch.library.custom_op("tinycore::block_attention_backward", mutates_args=())
def _operator_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, starts: Tensor | None, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(grad, q, k, v, y, starts, cap)


@_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, cap: float) -> Tensor:
    return _in_order_of_time(q)


@_operator_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, starts: Tensor | None, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _in_order_of_time(q), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, starts, ctx.cap = inputs
    ctx.save_for_backward(q, k, v, output, starts)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_operator_backward(grad, *ctx.saved_tensors, ctx.cap), None, None


_operator.register_autograd(_gradients, setup_context=_save)


@contextlib.contextmanager
def _products_of(dtype: torch.dtype) -> Generator[None]:
    """Where factors come from bfloat16, their float32 products by the instructions for bfloat16: the same numbers (such
    factors are exact in both, and sums are float32 in both), twice as fast."""
    products: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009  (made by torch at import)
    before = products.fp32_precision
    if dtype == torch.bfloat16:
        products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


def _forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, cap: float) -> Tensor:
    with _products_of(q.dtype):
        return _blocks_forward(q, k, v, starts, cap)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, starts: Tensor | None, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    with _products_of(q.dtype):
        return _blocks_backward(grad, q, k, v, y, starts, cap)


def _blocks_forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, cap: float) -> Tensor:
    groups, width = k.shape[1], q.shape[3]
    wide = torch.promote_types(q.dtype, torch.float32)
    grouped = q.unflatten(1, (groups, -1))  # (B, G, R, T, h)
    y = _in_order_of_time(q)
    into, scale = y.unflatten(1, (groups, -1)), width**-0.5
    (scores,) = _buffers(q, wide, 1)
    for rows, blocks in _plan(q, starts):
        keys = k[rows].to(wide).transpose(2, 3)  # (b, G, h, T)
        values = v[rows]
        for block, seen, hidden in blocks:
            queries = grouped[rows, :, :, block].to(wide)
            weights = _weights(queries, keys[..., seen], hidden, scale, cap, scores)
            into[rows, :, :, block] = _product(weights.to(q.dtype), values[:, :, seen])
    return y


def _blocks_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, starts: Tensor | None, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    groups, width = k.shape[1], q.shape[3]
    wide = torch.promote_types(q.dtype, torch.float32)
    scale = width**-0.5
    grouped, upstream = q.unflatten(1, (groups, -1)), grad.unflatten(1, (groups, -1))
    # the part of d scores that is the same for all keys of a query: - sum over s of weight * d weight
    along = torch.linalg.vecdot(grad.to(wide), y.to(wide)).neg_().unflatten(1, (groups, -1))[..., None]
    grad_q = _in_order_of_time(q)
    grad_k, grad_v = (torch.zeros(k.shape, dtype=wide, device=k.device) for _ in range(2))
    into = grad_q.unflatten(1, (groups, -1))
    scores, slopes = _buffers(q, wide, 2)
    for rows, blocks in _plan(q, starts):
        keys, values = k[rows].to(wide).transpose(2, 3), v[rows].to(wide).transpose(2, 3)
        for block, seen, hidden in blocks:
            queries, above = grouped[rows, :, :, block], upstream[rows, :, :, block]
            weights = _weights(queries.to(wide), keys[..., seen], hidden, scale, cap, scores)
            slope = _scores(above.to(wide), values[..., seen], slopes, along[rows, :, :, block]).mul_(weights)
            if cap:
                slope.mul_(_slope_of_cap(scores[: slope.numel()].view_as(slope), cap))
            slope = slope.to(q.dtype)
            grad_v[rows, :, seen] += _product_over_queries(weights.to(q.dtype), above)
            grad_k[rows, :, seen] += _product_over_queries(slope, queries)
            into[rows, :, :, block] = _product(slope, k[rows][:, :, seen])
    return grad_q.mul_(scale), grad_k.mul_(scale).to(k.dtype), grad_v.to(v.dtype)


def _in_order_of_time(q: Tensor) -> Tensor:
    """An empty tensor like q (B, H, T, h) whose memory has the order (B, T, H, h): all heads of a token side by side, as the
    projection that follows reads them."""
    rows, heads, length, width = q.shape
    return q.new_empty(rows, length, heads, width).transpose(1, 2)


def _buffers(q: Tensor, wide: torch.dtype, number: int) -> list[Tensor]:
    """Room for the scores of one block of `_plan`."""
    rows, heads, length, _ = q.shape
    size = _rows_at_once(q) * heads * _queries(length) * length if rows else 0
    return [torch.empty(size, dtype=wide, device=q.device) for _ in range(number)]


def _rows_at_once(q: Tensor) -> int:
    rows, heads, length, _ = q.shape
    return _most_rows(rows, heads * _queries(length) * length)


def _most_rows(rows: int, scores: int) -> int:
    """How many of `rows` go together, when a block of one has so many scores."""
    return max(1, min(rows, SCORES // scores))


def _queries(length: int) -> int:
    """Queries of a block, all but the last of a row."""
    return min(length, max(QUERIES, -(-length // BLOCKS)))


# Blocks of each row (or of all) by the tensor of starts that says where they begin: all layers of a pass, and its backward
# pass, ask for the same ones.
Blocks = list[tuple[slice, slice, Tensor]]
_BLOCKS: Any = WeakTensorKeyDictionary()


def _plan(q: Tensor, starts: Tensor | None) -> Iterator[tuple[slice, Blocks]]:
    """Rows that go together, and for them (queries, keys that one of them sees, which of these each does not see).

    The last is (1, queries, the keys at its end that need it) of -inf and 0, to be added.
    """
    count, _, length, _ = q.shape
    wide, queries = torch.promote_types(q.dtype, torch.float32), _queries(length)
    if starts is None:
        of_rows = [_causal_blocks(length, queries, wide, q.device)]
    else:
        known = _BLOCKS.setdefault(starts, {})
        if (wide, queries) not in known:
            known[wide, queries] = [_blocks_from(row, queries, wide) for row in starts]
        of_rows = known[wide, queries]
    step = _rows_at_once(q) if len(of_rows) == 1 else 1
    for number, first in enumerate(range(0, count, step)):
        yield slice(first, min(first + step, count)), of_rows[min(number, len(of_rows) - 1)]


def _causal_blocks(length: int, queries: int, wide: torch.dtype, device: torch.device) -> Blocks:
    later = torch.full((1, queries, queries), float("-inf"), dtype=wide, device=device).triu_(1)
    ends = [min(first + queries, length) for first in range(0, length, queries)]
    sizes = [end - first for end, first in zip(ends, range(0, length, queries), strict=True)]
    return [
        (slice(end - size, end), slice(0, end), later[:, :size, :size]) for end, size in zip(ends, sizes, strict=True)
    ]


def _blocks_from(starts: Tensor, queries: int, wide: torch.dtype) -> Blocks:
    """starts (T,) of one row."""
    slots, found = torch.arange(len(starts), device=starts.device), []
    for first in range(0, len(starts), queries):
        block = slice(first, min(first + queries, len(starts)))
        begin = starts[block, None]
        seen = slice(int(begin.min()), block.stop)
        hidden = (slots[seen] < begin) | (slots[seen] > slots[block, None])
        found.append((block, seen, torch.zeros(hidden.shape, dtype=wide).masked_fill_(hidden, float("-inf"))[None]))
    return found


def _scores(queries: Tensor, keys: Tensor, buffer: Tensor, offset: Tensor | None = None) -> Tensor:
    """queries (b, G, R, t, h) times keys (b, G, h, s), plus offset (b, G, R, t, 1): (b, G, R, t, s) in the buffer."""
    rows, groups, shared, length, width = queries.shape
    keys = keys.reshape(rows * groups, width, -1)
    out = buffer[: rows * groups * shared * length * keys.shape[2]].view(rows * groups, shared * length, -1)
    flat = queries.reshape(rows * groups, shared * length, width)
    if offset is None:
        torch.bmm(flat, keys, out=out)
    else:
        torch.bmm(flat, keys, out=out).add_(offset.reshape(rows * groups, shared * length, 1))
    return out.view(rows, groups, shared, length, -1)


def _weights(queries: Tensor, keys: Tensor, hidden: Tensor, scale: float, cap: float, buffer: Tensor) -> Tensor:
    """softmax of scale * queries (b, G, R, t, h) times keys (b, G, h, s); the buffer keeps the scores, capped and hidden."""
    scores = _scores(queries, keys, buffer)
    if cap:
        scores.mul_(scale / cap).tanh_().mul_(cap)
    else:
        scores.mul_(scale)
    scores[..., scores.shape[-1] - hidden.shape[-1] :].add_(hidden[:, None, None])
    return scores.softmax(-1)


def _slope_of_cap(scores: Tensor, cap: float) -> Tensor:
    """1 - tanh^2 where `scores`, in which it is put, are cap * tanh; 0 where they are hidden (-inf)."""
    return scores.div_(cap).square_().neg_().add_(1).clamp_(min=0)


def _product(weights: Tensor, values: Tensor) -> Tensor:
    """(b, G, R, t, s) times (b, G, s, h): (b, G, R, t, h)."""
    rows, groups, shared, length, seen = weights.shape
    found = torch.bmm(weights.view(rows * groups, -1, seen), values.reshape(rows * groups, seen, -1))
    return found.view(rows, groups, shared, length, -1)


def _product_over_queries(weights: Tensor, values: Tensor) -> Tensor:
    """(b, G, R, t, s) and (b, G, R, t, h), summed over R and t: (b, G, s, h)."""
    rows, groups, shared, length, seen = weights.shape
    flat = weights.view(rows * groups, shared * length, seen).transpose(1, 2)
    return torch.bmm(flat, values.reshape(rows * groups, shared * length, -1)).view(rows, groups, seen, -1)
