"""Ternary weights in two bits, and the layer that reads them.

The columns are cut into four quarters of Q = ceil(K / 4): byte (o, j) holds the weights of columns j, j + Q, j + 2Q,
j + 3Q from its lowest bits up, each as value + 1 (columns past K as 1, that is 0). One load of bytes then feeds
four products whose activations are contiguous, without a shuffle. A layer of 512 x 1536 takes 196608 bytes and
four for its scale.
"""

from typing import NamedTuple

import torch

from tinykernels import dispatch, validation
from tinykernels.bitlinear import cpu, quantisation
from tinykernels.bitlinear.operation import MAX_ROW, check_input, flat, implementation, output_dtype
from tinykernels.registration import operator

OPERATION = "bitlinear_packed"


class PackedTernary(NamedTuple):
    """A ternary weight (O, K): `codes` uint8 (O, ceil(K / 4)), `scale` a float32 scalar, `in_features` K."""

    codes: torch.Tensor
    scale: torch.Tensor
    in_features: int


def pack(weight: torch.Tensor) -> PackedTernary:
    """Quantise a latent weight (O, K) as `bitlinear` does and pack it; `bitlinear_packed` then gives bitlinear's
    bits. Raises ValueError for a weight that is not a finite floating matrix."""
    sizes = validation.shapes("pack", weight=(weight, "O K"))
    validation.dtypes("pack", validation.FLOATS, weight=weight)
    if weight.numel() == 0:
        raise ValueError(f"pack: weight must not be empty, got shape {tuple(weight.shape)}")
    validation.finite("pack", weight=weight)
    with torch.no_grad():
        scale = quantisation.weight_scale(weight)
        ternary = quantisation.ternary_of(weight, scale)
        quarter = -(-sizes["K"] // 4)
        codes = torch.nn.functional.pad(ternary, (0, 4 * quarter - sizes["K"])) + 1
        codes = codes.to(torch.uint8).view(sizes["O"], 4, quarter)
        packed = codes[:, 0] | codes[:, 1] << 2 | codes[:, 2] << 4 | codes[:, 3] << 6
    return PackedTernary(packed.contiguous(), scale.to(torch.float32), sizes["K"])


def unpack(packed: PackedTernary, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The weight (O, K) that `packed` stands for: -scale, 0 or scale."""
    _check("unpack", packed)
    return cpu.ternary_from(packed.codes, packed.in_features).to(dtype) * packed.scale.to(dtype)


def bitlinear_packed(
    x: torch.Tensor,
    packed: PackedTernary,
    bias: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    norm_eps: float = 1e-5,
    backend: dispatch.Backend = "auto",
) -> torch.Tensor:
    """`bitlinear(x, weight, bias, norm_weight, norm_eps)` for packed = pack(weight), bit for bit, without gradients.

    x: (..., K); returns (..., O) in x's dtype, or autocast's. Inference only: raises ValueError if x, bias or
    norm_weight asks for a gradient while gradients are on, for a NaN or infinite scale, and as `bitlinear` does.
    """
    _check(OPERATION, packed)
    check_input(OPERATION, x, packed.codes.shape[0], packed.in_features, bias, norm_weight, norm_eps)
    validation.same_device(OPERATION, x=x, codes=packed.codes, scale=packed.scale)
    tensors = {"x": x, "bias": bias, "norm_weight": norm_weight}
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{OPERATION}: {name} asks for a gradient, packed weights only infer; use bitlinear")
    unsupported = None
    if x.dtype == torch.float64:
        unsupported = "float64 runs on the torch path"
    elif packed.in_features > MAX_ROW:
        unsupported = f"rows of more than {MAX_ROW} elements do not fit a program's registers"
    chosen = dispatch.choose(OPERATION, backend, x.device, unsupported)
    y = _bitlinear_packed(flat(x), packed.codes, packed.scale, bias, norm_weight, norm_eps, output_dtype(x), chosen)
    return y.view(*x.shape[:-1], y.shape[-1])


def _check(operation: str, packed: PackedTernary) -> None:
    if not isinstance(packed, PackedTernary):
        raise ValueError(f"{operation}: packed must come from pack(weight), got {type(packed).__name__}")
    validation.shapes(operation, codes=(packed.codes, "O Q"))
    validation.dtypes(operation, (torch.uint8,), codes=packed.codes)
    validation.dtypes(operation, (torch.float32,), scale=packed.scale)
    if packed.codes.shape[1] != -(-packed.in_features // 4):
        raise ValueError(
            f"{operation}: codes must have ceil(in_features / 4) = {-(-packed.in_features // 4)} columns, "
            f"got shape {tuple(packed.codes.shape)}"
        )
    if packed.scale.dim() != 0:
        raise ValueError(f"{operation}: scale must be a scalar, got shape {tuple(packed.scale.shape)}")
    validation.finite(operation, scale=packed.scale)


def _forward(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
    backend: str,
) -> torch.Tensor:
    if backend == "naive":
        ternary = cpu.ternary_from(codes, x.shape[1])
        value = x if norm_weight is None else quantisation.normed(x, norm_weight, eps)[0]
        row_codes, step = quantisation.codes_of(value)
        y = (row_codes.double() @ ternary.double().t()).to(step.dtype) * step[:, None] * scale
        return (y if bias is None else y + bias.to(y.dtype)).to(dtype)
    path = implementation(backend)
    row_codes, step, _ = path.quantise_rows(x, norm_weight, eps)
    return path.packed_product(row_codes, step, codes, scale, bias, dtype)


def _fake(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
    backend: str,
) -> torch.Tensor:
    return x.new_empty(x.shape[0], codes.shape[0], dtype=dtype)


_bitlinear_packed = operator(
    "bitlinear_packed",
    "(Tensor x, Tensor codes, Tensor scale, Tensor? bias, Tensor? norm_weight, float eps, ScalarType dtype,"
    " str backend) -> Tensor",
    _forward,
    _fake,
)
