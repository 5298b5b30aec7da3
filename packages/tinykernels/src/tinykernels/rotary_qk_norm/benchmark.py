"""Benchmark cases of rotary_qk_norm against the same in separate tensor operations."""

import torch
import torch.nn.functional as F

from tinykernels.bench import rivals
from tinykernels.bench.case import Case, relative_error
from tinykernels.rotary_qk_norm.operation import rotary_qk_norm


def cases(device: str) -> list[Case]:
    """Forward at 32 x 1024 with 8/2 heads of 64 in bfloat16 on a GPU, 4 x 512 in float32 on a CPU."""
    batch, length, dtype = (32, 1024, torch.bfloat16) if device == "cuda" else (4, 512, torch.float32)
    q, k = (torch.randn(batch, length, heads, 64, device=device, dtype=dtype) for heads in (8, 2))
    weight = torch.ones(64, device=device, dtype=dtype)
    angle = torch.outer(torch.arange(length, device=device), 10000.0 ** (-torch.arange(32, device=device) / 32))
    cos, sin = angle.cos(), angle.sin()

    def one(x: torch.Tensor) -> torch.Tensor:
        normed = F.rms_norm(x, (64,), weight.to(x.dtype), 1e-5)
        real, imaginary = normed.chunk(2, -1)
        rotated = torch.cat([-imaginary, real], -1)
        return normed * torch.cat([cos, cos], -1)[:, None] + rotated * torch.cat([sin, sin], -1)[:, None]

    others: rivals.Rivals = {"separate operations": one}
    if device == "cuda":
        others["torch.compile"] = torch.compile(one)

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        return rotary_qk_norm(q, k, cos, sin, weight, weight)

    return [
        Case(
            operation="rotary_qk_norm",
            label=f"{batch}x{length} 8/2x64 forward",
            ours=ours,
            error=lambda: max(relative_error(a, one(x.double())) for a, x in zip(ours(), (q, k), strict=True)),
            bound=1e-5 if dtype == torch.float32 else 2e-2,
            rivals={name: lambda call=call: (call(q), call(k)) for name, call in others.items()},
            bytes=2.0 * (q.numel() + k.numel()) * q.element_size(),
            goal=("separate operations", 1.5) if device == "cuda" else None,
        )
    ]
