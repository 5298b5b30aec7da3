"""Benchmark cases of newton_schulz against one matrix at a time."""

import torch

from tinykernels.bench.case import Case, relative_error
from tinykernels.newton_schulz.naive import newton_schulz as one_by_one
from tinykernels.newton_schulz.operation import QUINTIC, newton_schulz


def cases(device: str) -> list[Case]:
    """32 matrices of 512 x 512 in bfloat16 on a GPU, 6 of 256 x 256 in float32 on a CPU, against loop and stack."""
    count, size, dtype = (32, 512, torch.bfloat16) if device == "cuda" else (6, 256, torch.float32)
    matrices = torch.randn(count, size, size, device=device, dtype=dtype)

    def ours() -> torch.Tensor:
        return newton_schulz(matrices)

    def error() -> float:
        return relative_error(ours(), newton_schulz(matrices.double(), backend="torch"))

    rivals = {"loop": lambda: one_by_one(matrices, 5, QUINTIC, 1e-7)}
    if device == "cuda":
        rivals["stacked baddbmm"] = lambda: newton_schulz(matrices, backend="torch")
    return [
        Case(
            operation="newton_schulz",
            label=f"{count} x {size}x{size}, 5 steps",
            ours=ours,
            error=error,
            bound=1e-4 if dtype == torch.float32 else 1e-1,
            rivals=rivals,
            flops=5 * 4.0 * count * size**3,
            goal=("stacked baddbmm", 1.2) if device == "cuda" else None,
        )
    ]
