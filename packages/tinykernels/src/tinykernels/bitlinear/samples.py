"""Calls of bitlinear and bitlinear_packed for the ahead-of-time compile check."""

from collections.abc import Callable

import torch

from tinykernels.bitlinear import triton_kernels


def samples() -> dict[str, Callable[[], object]]:
    """Quantisation and products of 512 -> 1536 for 32768, 256 and 1 rows, and odd sizes with a bias."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    weight, scale, norm = empty(1536, 512), empty(), empty(512)
    ternary, packed = empty(1536, 512, dtype=torch.int8), empty(1536, 128, dtype=torch.uint8)
    odd, odd_packed = empty(200, 90, dtype=torch.int8), empty(200, 23, dtype=torch.uint8)
    x = empty(32768, 512, dtype=torch.bfloat16)
    calls: dict[str, Callable[[], object]] = {
        "weight": lambda: triton_kernels.quantise_weight(weight),
        "rows": lambda: triton_kernels.quantise_rows(x, None, 1e-5),
        "rows with norm": lambda: triton_kernels.quantise_rows(x, norm, 1e-5),
        "rows 2048 float32": lambda: triton_kernels.quantise_rows(empty(64, 2048), None, 1e-5),
    }
    for rows in (32768, 256, 1):
        codes, step = empty(rows, 512, dtype=torch.int8), empty(rows)
        odd_codes = empty(rows, 90, dtype=torch.int8)
        calls |= {
            f"product {rows} rows": lambda codes=codes, step=step: triton_kernels.product(
                codes, step, ternary, scale, None, torch.bfloat16
            ),
            f"packed product {rows} rows": lambda codes=codes, step=step: triton_kernels.packed_product(
                codes, step, packed, scale, None, torch.bfloat16
            ),
            f"product {rows} rows 90 -> 200": lambda codes=odd_codes, step=step: triton_kernels.product(
                codes, step, odd, scale, empty(200), torch.float32
            ),
            f"packed product {rows} rows 90 -> 200": lambda codes=odd_codes, step=step: triton_kernels.packed_product(
                codes, step, odd_packed, scale, empty(200), torch.float32
            ),
        }
    return calls
