"""Linear layer with ternary weights and 8-bit activations: BitLinear of BitNet b1.58 (arXiv 2402.17764).

    n = RMSNorm(x) * norm_weight, or x                          (..., K)
    y = ((codes(n) . ternary(W)) step(n)) scale(W) + bias       (..., O)     see quantisation

The product is taken on integers and is exact, so training, packed inference and every backend give the same bits
for the same n (the norm's own mean is rounded in the order a backend adds). Rows are independent. Gradients are
straight-through: those of a dense layer with the quantised n and W in place of n and W.
"""

from typing import Any

import torch

from tinykernels import dispatch, validation
from tinykernels.bitlinear import cpu, naive
from tinykernels.registration import differentiable

OPERATION = "bitlinear"
MAX_ROW = 16384  # columns that one Triton program quantises


def bitlinear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    norm_eps: float = 1e-5,
    fast_training: bool = False,
    backend: dispatch.Backend = "auto",
) -> torch.Tensor:
    """y (..., O) of x (..., K), the latent weight (O, K), bias (O,), norm_weight (K,).

    x, weight, bias, norm_weight: any of float32, float16, bfloat16 each (float64 on torch and naive); keep the
    latent weight in float32. The result has x's dtype, or autocast's where autocast is on.
    norm_weight: normalise each row first, fused with its quantisation; None = the rows as they are.
    fast_training: the two matrix products of the backward pass take bfloat16 operands also where x is float32.
    The forward is the same exact one; the gradients are rounded (relative error about 4e-3).

    Gradients flow to x, weight, bias and norm_weight. Raises ValueError naming a bad argument, BackendError for a
    forced backend that cannot run.
    """
    sizes = validation.shapes(OPERATION, weight=(weight, "O K"))
    validation.dtypes(OPERATION, validation.FLOATS, weight=weight)
    if weight.numel() == 0:
        raise ValueError(f"{OPERATION}: weight must not be empty, got shape {tuple(weight.shape)}")
    check_input(OPERATION, x, sizes["O"], sizes["K"], bias, norm_weight, norm_eps)
    validation.same_device(OPERATION, x=x, weight=weight)
    unsupported = None
    if torch.float64 in (x.dtype, weight.dtype):
        unsupported = "float64 runs on the torch path"
    elif sizes["K"] > MAX_ROW:
        unsupported = f"rows of more than {MAX_ROW} elements do not fit a program's registers"
    chosen = dispatch.choose(OPERATION, backend, x.device, unsupported)
    dtype = output_dtype(x)
    if chosen == "naive":
        y = naive.bitlinear(flat(x), weight, bias, norm_weight, norm_eps, dtype)
    else:
        gradient_dtype = torch.bfloat16 if fast_training else dtype
        y = _bitlinear(flat(x), weight, bias, norm_weight, norm_eps, dtype, gradient_dtype, chosen)[0]
    return y.view(*x.shape[:-1], sizes["O"])


def check_input(
    operation: str,
    x: torch.Tensor,
    out_features: int,
    in_features: int,
    bias: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    norm_eps: float,
) -> None:
    """What bitlinear and bitlinear_packed ask of their floating arguments. Raises ValueError."""
    if not isinstance(x, torch.Tensor) or x.dim() < 1 or x.shape[-1] != in_features:
        shape = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"{operation}: x must have shape (..., {in_features}), got {shape}")
    validation.shapes(operation, bias=(bias, "O"), norm_weight=(norm_weight, "K"))
    for name, tensor, size in (("bias", bias, out_features), ("norm_weight", norm_weight, in_features)):
        if tensor is not None and tensor.shape[0] != size:
            raise ValueError(f"{operation}: {name} must have shape ({size},), got {tuple(tensor.shape)}")
    validation.dtypes(operation, validation.FLOATS, x=x, bias=bias, norm_weight=norm_weight)
    validation.same_device(operation, x=x, bias=bias, norm_weight=norm_weight)
    validation.positive(operation, norm_eps=norm_eps)


def flat(x: torch.Tensor) -> torch.Tensor:
    """(..., K) as contiguous rows (M, K)."""
    return x.reshape(-1, x.shape[-1]).contiguous()


def output_dtype(x: torch.Tensor) -> torch.dtype:
    """x's dtype, or autocast's where autocast is on for its device; float64 stays."""
    if x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def implementation(backend: str) -> Any:
    """The module with quantise_weight, quantise_rows, product, packed_product and norm_backward."""
    if backend == "torch":
        return cpu
    from tinykernels.bitlinear import triton_kernels

    return triton_kernels


def _forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
    gradient_dtype: torch.dtype,
    backend: str,
) -> tuple[torch.Tensor, ...]:
    path = implementation(backend)
    ternary, scale = path.quantise_weight(weight)
    codes, step, inverse_root = path.quantise_rows(x, norm_weight, eps)
    return path.product(codes, step, ternary, scale, bias, dtype), codes, step, inverse_root, ternary, scale


def _fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
    gradient_dtype: torch.dtype,
    backend: str,
) -> tuple[torch.Tensor, ...]:
    rows = x.shape[0]
    wide = torch.promote_types(x.dtype, torch.float32)
    return (
        x.new_empty(rows, weight.shape[0], dtype=dtype),
        x.new_empty(x.shape, dtype=torch.int8),
        x.new_empty(rows, dtype=wide),
        x.new_empty(0 if norm_weight is None else rows, dtype=wide),
        weight.new_empty(weight.shape, dtype=torch.int8),
        weight.new_empty((), dtype=torch.promote_types(weight.dtype, torch.float32)),
    )


def _backward(
    grad_y: torch.Tensor,
    codes: torch.Tensor,
    step: torch.Tensor,
    inverse_root: torch.Tensor,
    ternary: torch.Tensor,
    scale: torch.Tensor,
    x: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    gradient_dtype: torch.dtype,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, weight and norm_weight (empty without one)."""
    grad = grad_y.to(gradient_dtype)
    dequantised = torch.empty(codes.shape, dtype=gradient_dtype, device=codes.device)
    grad_weight = grad.t() @ torch.mul(codes, step[:, None], out=dequantised)
    grad_rows = (grad @ ternary.to(gradient_dtype)).to(grad_y.dtype)
    torch.mul(grad_rows, scale.reshape(1, 1), out=grad_rows)  # in the wider dtype: the scale is not rounded
    grad_weight = grad_weight.to(scale.dtype)
    if x is None or norm_weight is None:
        return grad_rows, grad_weight, step.new_empty(0)
    grad_x, grad_norm = implementation(backend).norm_backward(grad_rows, x, norm_weight, inverse_root)
    return grad_x, grad_weight, grad_norm


def _backward_fake(
    grad_y: torch.Tensor,
    codes: torch.Tensor,
    step: torch.Tensor,
    inverse_root: torch.Tensor,
    ternary: torch.Tensor,
    scale: torch.Tensor,
    x: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    gradient_dtype: torch.dtype,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad_x = codes.new_empty(codes.shape, dtype=grad_y.dtype if x is None else x.dtype)
    grad_weight = ternary.new_empty(ternary.shape, dtype=scale.dtype)
    if norm_weight is None:
        return grad_x, grad_weight, step.new_empty(0)
    return grad_x, grad_weight, norm_weight.new_empty(norm_weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, bias, norm_weight, _, _, ctx.gradient_dtype, ctx.backend = inputs
    ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
    ctx.save_for_backward(*output[1:], None if norm_weight is None else x, norm_weight)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(
    ctx: Any, backward: Any, grad_y: torch.Tensor | None, *unused: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 8
    codes, step, inverse_root, ternary, scale, x, norm_weight = ctx.saved_tensors
    grad_x, grad_weight, grad_norm = backward(
        grad_y, codes, step, inverse_root, ternary, scale, x, norm_weight, ctx.gradient_dtype, ctx.backend
    )
    x_dtype, weight_dtype, bias_dtype = ctx.dtypes
    return (
        grad_x.to(x_dtype),
        grad_weight.to(weight_dtype),
        None if bias_dtype is None else grad_y.sum(0).to(bias_dtype),
        None if norm_weight is None else grad_norm,
        None,
        None,
        None,
        None,
    )


_bitlinear = differentiable(
    "bitlinear",
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, float eps, ScalarType dtype,"
    " ScalarType gradient_dtype, str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor grad_y, Tensor codes, Tensor step, Tensor inverse_root, Tensor ternary, Tensor scale,"
    " Tensor? x, Tensor? norm_weight, ScalarType gradient_dtype, str backend) -> (Tensor, Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
