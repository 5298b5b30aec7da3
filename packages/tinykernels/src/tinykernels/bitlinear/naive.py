"""The oracle of bitlinear: the definition, with straight-through gradients by plain autograd."""

import torch

from tinykernels.bitlinear import quantisation


def bitlinear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """y (M, O) of rows x (M, K). The gradient is that of a dense layer whose inputs are the quantised values."""
    if norm_weight is None:
        value = x.to(torch.promote_types(x.dtype, torch.float32))
    else:
        value, _ = quantisation.normed(x, norm_weight, eps)
    with torch.no_grad():
        scale = quantisation.weight_scale(weight)
        ternary = quantisation.ternary_of(weight, scale)
        codes, step = quantisation.codes_of(value)
        integers = codes.double() @ ternary.double().t()  # exact
        exact = integers.to(value.dtype) * step[:, None] * scale
        value_error = codes * step[:, None] - value
        weight_error = ternary * scale - weight.to(value.dtype)
    # the straight-through estimator: the quantised values forward, the identity backward
    smooth = (value + value_error) @ (weight.to(value.dtype) + weight_error).t()
    y = exact + (smooth - smooth.detach())
    if bias is not None:
        y = y + bias.to(value.dtype)
    return y.to(dtype)
