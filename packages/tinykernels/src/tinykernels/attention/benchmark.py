"""Benchmark cases of attention against PyTorch's fused attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tinykernels.attention.operation import attention
from tinykernels.bench.case import Case, gradient_error, relative_error, training_step


def cases(device: str) -> list[Case]:
    """Causal, windowed and packed attention with 8/2 heads of 64: 32 x 1024 bfloat16 on a GPU, 2 x 512 on a CPU."""
    batch, length, dtype = (32, 1024, torch.bfloat16) if device == "cuda" else (2, 512, torch.float32)
    q = torch.randn(batch, length, 8, 64, device=device, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(batch, length, 2, 64, device=device, dtype=dtype, requires_grad=True) for _ in range(2))
    upstream = torch.randn_like(q)
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    traffic = (2 * q.numel() + 2 * k.numel()) * q.element_size()
    pairs = batch * 8 * length * (length + 1) / 2

    def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)

    step = training_step(attention, (q, k, v), upstream)
    exact = tuple(t.detach().float().requires_grad_() for t in (q, k, v))
    on_gpu = device == "cuda"
    shape = f"{batch}x{length} 8/2x64"
    result = [
        Case(
            operation="attention",
            label=f"{shape} forward",
            ours=lambda: attention(q.detach(), k.detach(), v.detach()),
            error=lambda: relative_error(attention(q, k, v), reference(*exact)),
            bound=bound,
            rivals={"SDPA": lambda: reference(q.detach(), k.detach(), v.detach())},
            bytes=traffic,
            flops=4 * 64 * pairs,
            share=0.45 if on_gpu else None,
        ),
        Case(
            operation="attention",
            label=f"{shape} forward + backward",
            ours=step,
            error=gradient_error(step, training_step(reference, exact, upstream.float())),
            bound=bound,
            rivals={"SDPA": training_step(reference, (q, k, v), upstream)},
            bytes=3 * traffic,
            flops=14 * 64 * pairs,
            share=0.35 if on_gpu else None,
        ),
    ]
    return result + packed_cases(device, dtype, bound)


def packed_cases(device: str, dtype: torch.dtype, bound: float) -> list[Case]:
    """Eight documents in one row, and a window of an eighth, each against one dense mask."""
    length = 16384 if device == "cuda" else 1024
    q, k, v = (torch.randn(1, length, heads, 64, device=device, dtype=dtype) for heads in (8, 2, 2))
    piece = length // 8
    boundaries = torch.arange(0, length + 1, piece, dtype=torch.int32, device=device)
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    documents = (distance >= 0) & (position[:, None] // piece == position // piece)
    window = (distance >= 0) & (distance < piece)

    def case(label: str, mask: torch.Tensor, ours: Callable[[], torch.Tensor]) -> Case:
        def dense(kind: torch.dtype = dtype) -> torch.Tensor:
            heads = [t.to(kind).transpose(1, 2) for t in (q, k, v)]
            return F.scaled_dot_product_attention(
                heads[0], heads[1], heads[2], attn_mask=mask, enable_gqa=True
            ).transpose(1, 2)

        return Case(
            operation="attention",
            label=f"1x{length} {label} forward",
            ours=ours,
            error=lambda: relative_error(ours(), dense(torch.float32)),
            bound=bound,
            rivals={"SDPA dense mask": dense},
            bytes=(2 * q.numel() + 2 * k.numel()) * q.element_size(),
            flops=4 * 64 * 8 * float(mask.sum()),
            goal=("SDPA dense mask", 1.5),
        )

    return [
        case("8 documents", documents, lambda: attention(q, k, v, cu_seqlens=boundaries)),
        case(f"window {piece}", window, lambda: attention(q, k, v, window=piece)),
    ]
