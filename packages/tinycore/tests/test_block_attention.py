"""Attention in blocks equals the formula over a full mask, with its gradients, in float64 and as closely as PyTorch's own
in bfloat16; rows of many blocks, documents, windows; and nothing outside the live scores is read.

The reference is the softmax written out over all T x T scores, differentiated by autograd.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinycore.context import PADDING, begin
from tinycore.ops import attention as blocks
from tinycore.ops.attention import causal_attention


def inputs(
    rows: int, heads: int, groups: int, length: int, width: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """q, k, v as attention makes them (heads a stride, not the memory's order), and an upstream gradient."""
    draw = torch.Generator().manual_seed(length)
    shapes = [(rows, length, count, width) for count in (heads, groups, groups)]
    made = [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).transpose(1, 2) for shape in shapes]
    upstream = torch.randn(rows, heads, length, width, generator=draw, dtype=torch.float64).to(dtype)
    return [*(tensor.requires_grad_() for tensor in made), upstream]


def by_formula(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, cap: float = 0.0) -> Tensor:
    length, slots = q.shape[2], torch.arange(q.shape[2])
    first = torch.zeros(1, length, dtype=torch.long) if starts is None else starts
    live = (slots[None, None] >= first[..., None]) & (slots[None, None] <= slots[None, :, None])  # (B or 1, T, T)
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], 1) for tensor in (k, v))
    scores = (q @ k.transpose(2, 3)) / q.shape[3] ** 0.5
    scores = cap * torch.tanh(scores / cap) if cap else scores
    return scores.masked_fill(~live[:, None], float("-inf")).softmax(-1) @ v


def with_gradients(y: Tensor, leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    return [y, *torch.autograd.grad(y, leaves, upstream.to(y.dtype))]


def documents(rows: int, length: int, mean: int, seed: int = 0) -> Tensor:
    """starts (B, T) of documents of about `mean` tokens."""
    draw = torch.Generator().manual_seed(seed)
    begins = torch.rand(rows, length, generator=draw) < 1 / mean
    begins[:, 0] = True
    return torch.where(begins, torch.arange(length), 0).cummax(1).values


def windowed(starts: Tensor | None, length: int, window: int) -> Tensor:
    recent = (torch.arange(length) - window + 1).clamp(min=0)[None]
    return recent if starts is None else torch.maximum(starts, recent)


CASES = {
    "causal": lambda rows, length: None,
    "documents": lambda rows, length: documents(rows, length, 30),
    "documents of one token": lambda rows, length: torch.arange(length).expand(rows, -1),
    "window": lambda rows, length: windowed(None, length, 17),
    "window and documents": lambda rows, length: windowed(documents(rows, length, 60), length, 40),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("heads, groups, width", [(4, 2, 8), (3, 1, 6), (2, 2, 4)])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 300, 600])
def test_equals_the_formula(case: str, heads: int, groups: int, width: int, length: int) -> None:
    *leaves, upstream = inputs(3, heads, groups, length, width)
    starts = CASES[case](3, length)
    found = with_gradients(causal_attention(*leaves, starts), leaves, upstream)
    expected = with_gradients(by_formula(*leaves, starts), leaves, upstream)
    for name, a, b in zip(("y", "dq", "dk", "dv"), found, expected, strict=True):
        assert (a - b).abs().max() < 1e-12, name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cap", [0.5, 30.0])
@pytest.mark.parametrize("length", [1, 65, 300])
def test_caps_equal_the_formula(case: str, cap: float, length: int) -> None:
    *leaves, upstream = inputs(3, 4, 2, length, 8)
    starts = CASES[case](3, length)
    found = with_gradients(causal_attention(*leaves, starts, cap), leaves, upstream)
    expected = with_gradients(by_formula(*leaves, starts, cap), leaves, upstream)
    for name, a, b in zip(("y", "dq", "dk", "dv"), found, expected, strict=True):
        assert (a - b).abs().max() < 1e-12, name


@given(st.integers(1, 4), st.integers(1, 90), st.integers(1, 40), st.integers(1, 2000))
@settings(max_examples=40, deadline=None)
def test_rows_and_blocks_of_any_number(rows: int, length: int, mean: int, scores: int) -> None:
    """However few scores may exist at one time, and however the row divides."""
    *leaves, upstream = inputs(rows, 2, 1, length, 4)
    starts = documents(rows, length, mean)
    before = blocks.SCORES, blocks.QUERIES
    blocks.SCORES, blocks.QUERIES = scores, 8
    try:
        found = with_gradients(causal_attention(*leaves, starts), leaves, upstream)
    finally:
        blocks.SCORES, blocks.QUERIES = before
    for a, b in zip(found, with_gradients(by_formula(*leaves, starts), leaves, upstream), strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("case", ["causal", "documents"])
def test_bfloat16_is_at_most_twice_as_far_off_as_pytorch(case: str) -> None:
    *leaves, upstream = inputs(2, 4, 2, 384, 32, torch.bfloat16)
    starts = CASES[case](2, 384)
    slots = torch.arange(384)
    live = None if starts is None else (slots >= starts[..., None]) & (slots <= slots[:, None])
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact = with_gradients(by_formula(*wide, starts), wide, upstream)
    ours = with_gradients(causal_attention(*leaves, starts), leaves, upstream)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *leaves, attn_mask=None if live is None else live[:, None], is_causal=live is None, enable_gqa=True
    )
    for a, b, x in zip(ours, with_gradients(theirs, leaves, upstream), exact, strict=True):
        assert (a.double() - x).square().mean().sqrt() <= 2 * (b.double() - x).square().mean().sqrt() + 1e-4


def test_the_precision_of_other_products_is_left_as_it_was() -> None:
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    *leaves, upstream = inputs(1, 2, 1, 80, 8, torch.bfloat16)
    with_gradients(causal_attention(*leaves), leaves, upstream)
    assert settings.fp32_precision == before


def test_what_is_not_live_is_not_read() -> None:
    """NaN in every key and value before a document reaches nothing of it, forward or backward."""
    leaves = inputs(1, 2, 1, 256, 4)[:3]
    starts = torch.where(torch.arange(256) < 128, 0, 128)[None]
    q, k, v = (leaf.detach().clone() for leaf in leaves)
    k[:, :, :128], v[:, :, :128] = float("nan"), float("nan")
    later = [tensor.requires_grad_() for tensor in (q, k, v)]
    y = causal_attention(*later, starts)
    grads = torch.autograd.grad(y[:, :, 128:].sum(), later)
    assert y[:, :, 128:].isfinite().all()
    assert all(grad[:, :, 128:].isfinite().all() for grad in grads)


def test_compiled_graphs_take_it_whole() -> None:
    *leaves, upstream = inputs(2, 4, 2, 70, 8)
    starts = documents(2, 70, 20)
    torch.library.opcheck(torch.ops.tinycore.block_attention.default, (*leaves, starts, 0.0))
    torch.library.opcheck(torch.ops.tinycore.block_attention.default, (*leaves, None, 2.0))
    torch.compiler.reset()
    run = torch.compile(causal_attention, fullgraph=True, backend="aot_eager")
    found = with_gradients(run(*leaves, starts), leaves, upstream)
    torch.compiler.reset()
    for a, b in zip(found, with_gradients(by_formula(*leaves, starts), leaves, upstream), strict=True):
        assert (a - b).abs().max() < 1e-12


def test_a_context_says_where_documents_begin() -> None:
    ids = torch.tensor([[PADDING, 3, 3, 3, 5, 5, PADDING, 6]])
    ctx, _ = begin(ids, ids, None)
    assert ctx.contiguous
    assert ctx.starts is not None
    assert ctx.starts[0].tolist() == [0, 1, 1, 1, 4, 4, 6, 7]


def test_a_context_with_padding_inside_of_a_document_does_not() -> None:
    ids = torch.tensor([[3, 3, PADDING, 3]])
    ctx, _ = begin(ids, ids, None)
    assert not ctx.contiguous
    assert ctx.starts is None
