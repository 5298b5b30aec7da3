"""The torch path of attention: PyTorch's own fused attention over the live part of the score matrix.

Documents are attended one by one and windows in blocks of queries, so the work is that of the live blocks;
one dense mask over everything costs 36 ms where document by document costs 21 (float32, B4 H8 T512 D64, 2
cores). Soft-capped scores, which PyTorch's fused attention lacks, are computed in the open. While
compiling, and on a GPU, where document lengths cannot be read without waiting for the device, documents
become a dense mask.
"""

import torch
import torch.nn.functional as F

from tinykernels.documents import segment_of

QUERY_BLOCK = 128


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """As `tinykernels.attention`, differentiable by autograd."""
    if cu_seqlens is None:
        return sequence(q, k, v, scale, window, softcap)
    if torch.compiler.is_compiling() or q.device.type != "cpu":
        length = q.shape[1]
        segments = segment_of(cu_seqlens, length)
        mask = live(length, length, 0, window, q.device) & (segments[:, None] == segments)
        return masked(q, k, v, mask, scale, softcap)
    lengths = cu_seqlens.diff().tolist()
    parts = [
        sequence(*document, scale, window, softcap)
        for document in zip(*(tensor.split(lengths, dim=1) for tensor in (q, k, v)), strict=True)
        if document[0].shape[1]
    ]
    return torch.cat(parts, dim=1) if parts else torch.zeros_like(q)


def sequence(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None, softcap: float | None
) -> torch.Tensor:
    """Attention within one document, or within the rows of a batch; the last query sees the last key."""
    queries, keys = q.shape[1], k.shape[1]
    unbounded = window is None or window >= keys
    if unbounded and softcap is None and queries in (1, keys):
        return fused(q, k, v, None, scale, causal=queries > 1)
    block = QUERY_BLOCK if window is None else max(QUERY_BLOCK, window)
    offset = keys - queries
    parts = []
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        low = 0 if window is None else max(0, start + offset - window + 1)
        mask = live(stop - start, stop + offset - low, start + offset - low, window, q.device)
        seen = slice(low, stop + offset)
        parts.append(masked(q[:, start:stop], k[:, seen], v[:, seen], mask, scale, softcap))
    return torch.cat(parts, dim=1) if parts else torch.zeros_like(q)


def live(queries: int, keys: int, offset: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Which keys each query sees (queries, keys), query i standing at key i + offset."""
    distance = torch.arange(queries, device=device)[:, None] + offset - torch.arange(keys, device=device)
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def masked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """Attention where `mask` (T, S) is true."""
    if softcap is None:
        return fused(q, k, v, mask, scale, causal=False)
    batch, queries, heads, size = q.shape
    grouped = q.unflatten(2, (k.shape[2], -1))  # (B, T, G, H / G, D)
    score = torch.einsum("btgnd,bsgd->bgnts", grouped, k)
    score = score.to(torch.promote_types(q.dtype, torch.float32)) * scale
    score = softcap * torch.tanh(score / softcap)
    weight = torch.softmax(score.masked_fill(~mask, float("-inf")), -1).to(q.dtype)
    return torch.einsum("bgnts,bsgd->btgnd", weight, v).reshape(batch, queries, heads, size)


def fused(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    *,
    causal: bool,
) -> torch.Tensor:
    """PyTorch's attention on (B, T, H, D) tensors."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()
