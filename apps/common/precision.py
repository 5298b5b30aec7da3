"""Which precision matrix products run in: bf16 autocast where the hardware has fast bf16, float32 elsewhere.

Weights, gradients and optimizer state are float32 in either case; autocast casts inside matrix products only, so bf16
needs no loss scaling. fp16 is not offered: it does, and float32 serves every device without fast bf16 at our sizes.
"""

from __future__ import annotations

import torch

from apps.common.errors import BadRequest


def resolve(requested: str, device: torch.device) -> str:
    """`requested` (auto, bf16 or fp32) as bf16 or fp32. Raises BadRequest for bf16 on a device that has none."""
    if requested == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if requested == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BadRequest(f"train.precision: {torch.cuda.get_device_name(device)} has no bf16; use fp32")
    return requested


def has_fast_bf16(device: torch.device) -> bool:
    """True where bf16 products have instructions of their own: CUDA from capability 8, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return _cpu_has_bf16()
    return False


def _cpu_has_bf16() -> bool:
    # public since torch 2.13; the private functions have the same answer before that
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
