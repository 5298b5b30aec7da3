"""The deployment form of a ternary linear (`Bit`): two bits a weight, and one scale.

Columns are cut into four quarters of Q = ceil(K / 4): byte (o, j) holds the weights of columns j, j + Q, j + 2Q, j + 3Q from
its lowest bits up, each as value + 1, columns past K as 1; tinykernels packs the same way. The forward pass unpacks a block
of rows at a time, so the weights are never there in full, and gives the bits that `Bit` gives: its sums of integers are
exact in any order. Memory is what this form saves; unpacking takes longer than reading floating weights does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinycore.linears.bit import Bit, sub_norm
from tinycore.ops.bit_linear import codes_of, integer_product, ternary_of, weight_scale
from tinycore.ops.precision import product_dtype, without_autocast

BLOCK = 2**18  # weights that are unpacked at one time, 1 MB of float32


class PackedBit(nn.Module):
    """(..., inputs) -> (..., outputs). Not trained: its backward pass raises RuntimeError."""

    codes: Tensor  # (outputs, ceil(inputs / 4)) uint8
    scale: Tensor  # () float32 or float64

    def __init__(self, linear: Bit) -> None:
        """With room for `linear`'s weights and its bias as it is; `packed` fills in the weights."""
        super().__init__()
        self.config, self.in_features, self.out_features = linear.config, linear.in_features, linear.out_features
        weight = linear.weight
        shape = (self.out_features, -(-self.in_features // 4))
        self.register_buffer("codes", torch.empty(shape, dtype=torch.uint8, device=weight.device))
        self.register_buffer("scale", torch.empty((), dtype=torch.float32, device=weight.device))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            x = _NoGradient.apply(x)
        dtype = product_dtype(x)
        codes, step = codes_of(sub_norm(x, self.config))
        rows = max(1, BLOCK // self.in_features)
        with without_autocast(x):
            parts = [
                integer_product(
                    codes, step, unpacked(block, self.in_features).to(codes.dtype), self.scale.to(codes.dtype)
                )
                for block in self.codes.split(rows)
            ]
            y = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
            return (y if self.bias is None else y + self.bias).to(dtype)

    def damage(self) -> str | None:
        """What is wrong with the codes or the scale as they were read, None if nothing is."""
        if self.codes.numel() and int(((self.codes & 0x55) & (self.codes >> 1)).max()) > 0:
            return "codes: two bits of 3, which stand for no weight"
        if not bool(self.scale.isfinite()) or float(self.scale) <= 0:
            return "scale: not a positive number"
        return None


def packed(linear: Bit) -> PackedBit:
    """The linear with its weights rounded as its forward pass rounds them, in two bits."""
    found = PackedBit(linear)
    with torch.no_grad():
        scale = weight_scale(linear.weight, linear.config.scale)
        ternary = ternary_of(linear.weight, scale)
        quarter = found.codes.shape[1]
        codes = nn.functional.pad(ternary, (0, 4 * quarter - found.in_features)).to(torch.int8) + 1
        a, b, c, d = codes.to(torch.uint8).view(found.out_features, 4, quarter).unbind(1)
        found.codes = (a | b << 2 | c << 4 | d << 6).contiguous()
        found.scale = scale
    return found


def unpacked(codes: Tensor, inputs: int) -> Tensor:
    """codes (O, ceil(inputs / 4)) -> weights (O, inputs) of -1, 0 and 1, int8."""
    quarters = [(codes >> shift & 3) for shift in (0, 2, 4, 6)]
    return torch.cat(quarters, dim=1)[:, :inputs].to(torch.int8) - 1


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        raise RuntimeError("packed ternary linears do not train; train the model they were packed from")
