"""Which precision matrix products run in: bf16 autocast where the hardware has fast bf16, float32 elsewhere, or fp16 on
request.

Weights, gradients and optimizer state are float32 in every case; autocast casts inside matrix products only. bf16 has the
range of float32; fp16 has not, and scales the loss (apps/common/loss_scale.py). It is for GPUs without bf16, such as a T4.
"""

from __future__ import annotations

import torch

from apps.common.errors import BadRequest


def resolve(requested: str, device: torch.device) -> str:
    """`requested` (auto, bf16, fp16 or fp32) as one of the last three. Raises BadRequest for what `device` has not."""
    if requested == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if requested == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BadRequest(f"train.precision: {torch.cuda.get_device_name(device)} has no bf16; use fp16 or fp32")
    if requested == "fp16" and device.type != "cuda":
        raise BadRequest(
            f"train.precision: fp16 is for CUDA devices, and this is {device.type}; use bf16, fp32 or auto"
        )
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
