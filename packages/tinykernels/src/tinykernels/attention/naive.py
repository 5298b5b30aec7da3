"""The oracle of attention: one query of one head at a time, under plain autograd."""

from itertools import pairwise

import torch


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """As `tinykernels.attention`."""
    batch, queries, heads, _ = q.shape
    keys, key_heads = k.shape[1:3]
    wide = torch.promote_types(q.dtype, torch.float32)
    begins = [0] * keys
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        for start, stop in pairwise(bounds):
            begins[start:stop] = [start] * (stop - start)
    out = []
    for row in range(batch):
        for query in range(queries):
            position = query + keys - queries
            low = begins[position]
            if window is not None:
                low = max(low, position - window + 1)
            for head in range(heads):
                group = head // (heads // key_heads)
                score = k[row, low : position + 1, group].to(wide) @ q[row, query, head].to(wide) * scale
                if softcap is not None:
                    score = softcap * torch.tanh(score / softcap)
                out.append(torch.softmax(score, 0) @ v[row, low : position + 1, group].to(wide))
    return torch.stack(out).reshape(q.shape).to(q.dtype) if out else torch.zeros_like(q)
