"""Calls of newton_schulz's kernel for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.newton_schulz.triton_kernels import symmetric_product


def samples() -> dict[str, Callable[[], object]]:
    """Both products at stacks of 512 x 512, 128 x 512 and 1024 x 1024 in bfloat16, and 512 x 512 in float32."""

    def case(rows: int, columns: int, dtype: torch.dtype) -> Callable[[], object]:
        x = torch.empty(8, rows, columns, dtype=dtype, device="meta")
        gram = torch.empty(8, rows, rows, dtype=dtype, device="meta")
        return lambda: (symmetric_product(x), symmetric_product(gram, gram, alpha=2.0, beta=-4.0))

    return {
        "512x512": case(512, 512, torch.bfloat16),
        "128x512": case(128, 512, torch.bfloat16),
        "1024x1024": case(1024, 1024, torch.bfloat16),
        "512x512 float32": case(512, 512, torch.float32),
    }
