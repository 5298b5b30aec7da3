"""Attention whose logits are capped softly (Gemma 2, arXiv 2408.00118), written out: with a cache, and off the CPU.

    y = softmax(cap * tanh(q k^T / (cap sqrt(h))) + mask) v

No fused kernel of PyTorch has the cap; whole rows on a CPU go in blocks (`ops.attention`). This path holds all scores, two
arrays of (B, H, T, S) in at least float32 from the forward to the backward pass: memory and time grow with the square of
the length, whatever a mask hides.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def capped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, cap: float) -> Tensor:
    """q (B, H, T, h), k and v (B, G, S, h), G dividing H -> (B, H, T, h) in v's dtype.

    mask: (B or 1, 1, T, S) bool, true where a token may be read; causal: instead of a mask, the last T of S slots are the
    queries' own and none reads a later one. Query head i reads key head i // (H / G).
    """
    rows, heads, length, width = q.shape
    groups, total = k.shape[1], k.shape[2]
    wide = torch.promote_types(q.dtype, torch.float32)
    # the cap is about large logits, which bfloat16 would round by several hundredths
    with contextlib.nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
        queries = (q.to(wide) * (width**-0.5 / cap)).reshape(rows, groups, -1, width)
        scores = (queries @ k.to(wide).transpose(2, 3)).view(rows, heads, length, total).tanh() * cap
        if causal:
            mask = torch.ones(length, total, dtype=torch.bool, device=q.device).tril(total - length)
        if mask is not None:
            scores = torch.where(
                mask, scores, float("-inf")
            )  # the backward pass keeps the mask itself, which layers share
        weights = scores.softmax(-1).to(v.dtype).view(rows, groups, -1, total)
        return (weights @ v).view(rows, heads, length, width)
