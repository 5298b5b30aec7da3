"""Benchmark cases of bitlinear and bitlinear_packed against a dense layer."""

import torch
import torch.nn.functional as F

from tinykernels.bench.case import Case, gradient_error, relative_error, training_step
from tinykernels.bitlinear.operation import bitlinear
from tinykernels.bitlinear.packing import bitlinear_packed, pack


def cases(device: str) -> list[Case]:
    """512 -> 1536: 32768 rows bfloat16 on a GPU, 2048 rows float32 on a CPU; one row, packed."""
    gpu = device == "cuda"
    rows, dtype = (32768, torch.bfloat16) if gpu else (2048, torch.float32)
    x = torch.randn(rows, 512, device=device, dtype=dtype, requires_grad=True)
    weight = (torch.randn(1536, 512, device=device) * 0.05).requires_grad_()
    upstream = torch.randn(rows, 1536, device=device, dtype=dtype)
    leaves = (x, weight)

    def dense(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight.to(x.dtype))

    def fast(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return bitlinear(x, weight, fast_training=True)

    def naive(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return bitlinear(x, weight, backend="naive")

    # the oracle at the same precision: in float64 a value next to a tie would round to another integer
    oracle = training_step(naive, leaves, upstream)
    rival = {f"F.linear {dtype}".replace("torch.", ""): training_step(dense, leaves, upstream)}
    name = next(iter(rival))
    bytes_forward = rows * (512 + 1536) * x.element_size() + weight.numel() * 4
    flops = 2.0 * rows * 512 * 1536
    found = [
        Case(
            operation="bitlinear",
            label=f"{rows}x512->1536 forward",
            ours=lambda: bitlinear(x.detach(), weight.detach()),
            error=lambda: relative_error(bitlinear(x, weight), naive(*leaves)),
            bound=2e-2 if gpu else 1e-5,
            rivals={name: lambda: dense(x.detach(), weight.detach())},
            bytes=bytes_forward,
            flops=flops,
            goal=(name, 1.0 if gpu else 2.0),
        )
    ]
    for label, function, ratio in (("exact", bitlinear, 2.0), ("fast_training", fast, 3.0)):
        step = training_step(function, leaves, upstream)
        found.append(
            Case(
                operation="bitlinear",
                label=f"{rows}x512->1536 forward + backward, {label}",
                ours=step,
                error=gradient_error(step, oracle),
                bound=2e-2 if gpu or function is fast else 1e-5,
                rivals=rival,
                bytes=3.0 * bytes_forward,
                flops=3 * flops,
                goal=(name, 1.0 if gpu else ratio),
            )
        )
    packed, row = pack(weight), x.detach()[:1]
    half, half_row = weight.detach().bfloat16(), row.bfloat16()
    found.append(
        Case(
            operation="bitlinear_packed",
            label="1x512->1536",
            ours=lambda: bitlinear_packed(row, packed),
            error=lambda: relative_error(bitlinear_packed(row, packed), naive(*leaves)[:1]),
            bound=2e-2 if gpu else 1e-5,
            rivals={"F.linear bfloat16": lambda: F.linear(half_row, half)},
            bytes=float(packed.codes.numel() + 512 * 4 + 1536 * 4),
        )
    )
    return found
