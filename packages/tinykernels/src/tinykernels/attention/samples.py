"""Calls of attention for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.attention import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Forward and backward at 32 x 1024 with 8/2 heads of 64, and the head sizes, dtypes and options that differ."""

    def case(
        size: int,
        dtype: torch.dtype = torch.bfloat16,
        *,
        window: int | None = None,
        softcap: float | None = None,
        documents: bool = False,
    ) -> Callable[[], object]:
        q = torch.empty(32, 1024, 8, size, dtype=dtype, device="meta")
        k = torch.empty(32, 1024, 2, size, dtype=dtype, device="meta")
        lse = torch.empty(32, 8, 1024, device="meta")
        boundaries = torch.empty(65, dtype=torch.int32, device="meta") if documents else None

        def call() -> None:
            options = (boundaries, size**-0.5, window, softcap)
            triton_kernels.forward(q, k, k, *options)
            triton_kernels.backward(q, q, k, k, q, lse, *options)

        return call

    return {
        "64": case(64),
        "18": case(18),
        "128": case(128),
        "64 float32": case(64, torch.float32),
        "128 float32": case(128, torch.float32),
        "64 documents window softcap": case(64, window=256, softcap=30.0, documents=True),
        "128 documents": case(128, documents=True),
    }
