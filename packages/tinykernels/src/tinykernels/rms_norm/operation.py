"""Root mean square norm over the last dimension, with the residual addition before it.

h = x + residual (x where none is given);  y = h / sqrt(mean(h^2) + eps) * weight          (..., D)

Zhang & Sennrich 2019 (arXiv:1910.07467). The statistics are float32 (float64 for float64), the sum is
rounded to the wider of the two dtypes before it is normed, and y has x's dtype. Rows do not see each other.
"""

from typing import Any, overload

import torch

from tinykernels import validation
from tinykernels.dispatch import Backend, choose
from tinykernels.registration import differentiable
from tinykernels.rms_norm import cpu, naive


@overload
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    residual: None = None,
    *,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> torch.Tensor: ...
@overload
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    residual: torch.Tensor,
    *,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> tuple[torch.Tensor, torch.Tensor]: ...
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    *,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """y (..., D); with a residual (..., D) the pair (y, h), h = x + residual being the next residual stream.

    x: (..., D) floating; weight: (D,) floating or None for 1; residual: x's shape, floating, or None.
    Gradients flow to x, weight and residual, from y and from h. Raises ValueError naming the argument.
    """
    _check(x, weight, residual, eps)
    unsupported = None
    if x.shape[-1] > 16384:
        unsupported = f"rows of {x.shape[-1]} elements do not fit a program's registers"
    elif torch.float64 in (tensor.dtype for tensor in (x, weight, residual) if tensor is not None):
        unsupported = "the kernels compute in float32, not float64"
    chosen = choose("rms_norm", backend, x.device, unsupported)
    if chosen == "naive":
        y, h = naive.rms_norm(x, weight, residual, eps)
    else:
        y, h, _ = _apply(x, weight, residual, eps, chosen)
    return y if residual is None else (y, h)


def _check(x: torch.Tensor, weight: torch.Tensor | None, residual: torch.Tensor | None, eps: float) -> None:
    if not isinstance(x, torch.Tensor) or x.dim() < 1 or x.shape[-1] < 1:
        raise ValueError("rms_norm: x must be a tensor (..., D) with D >= 1")
    if residual is not None and residual.shape != x.shape:
        shape = tuple(residual.shape)
        raise ValueError(f"rms_norm: residual must have x's shape {tuple(x.shape)}, got {shape}")
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: weight must have shape ({x.shape[-1]},), got {tuple(weight.shape)}")
    validation.dtypes("rms_norm", validation.FLOATS, x=x, weight=weight, residual=residual)
    validation.same_device("rms_norm", x=x, weight=weight, residual=residual)
    validation.positive("rms_norm", eps=eps)


def _implementation(backend: str) -> Any:
    if backend == "torch":
        return cpu
    from tinykernels.rms_norm import triton_kernels

    return triton_kernels


def _forward(
    x: torch.Tensor, weight: torch.Tensor | None, residual: torch.Tensor | None, eps: float, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = x.shape[-1]
    flat = x.reshape(-1, width).contiguous()
    other = None if residual is None else residual.reshape(-1, width).contiguous()
    y, h, scale = _implementation(backend).forward(flat, weight, other, eps)
    return y.view(x.shape), x.new_empty(0) if h is None else h.view(x.shape), scale.view(x.shape[:-1])


def _fake(
    x: torch.Tensor, weight: torch.Tensor | None, residual: torch.Tensor | None, eps: float, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    h = x.new_empty(0)
    if residual is not None:
        h = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, residual.dtype))
    return (
        x.new_empty(x.shape),
        h,
        x.new_empty(x.shape[:-1], dtype=torch.promote_types(x.dtype, torch.float32)),
    )


def _backward(
    grad_y: torch.Tensor | None,
    grad_h: torch.Tensor | None,
    h: torch.Tensor,
    weight: torch.Tensor | None,
    scale: torch.Tensor,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    width = h.shape[-1]
    grad_y = torch.zeros_like(h) if grad_y is None else grad_y
    grad, grad_weight = _implementation(backend).backward(
        grad_y.reshape(-1, width).contiguous(),
        None if grad_h is None else grad_h.reshape(-1, width).contiguous(),
        h.reshape(-1, width).contiguous(),
        weight,
        scale.reshape(-1),
    )
    return grad.view(h.shape), h.new_empty(0) if grad_weight is None else grad_weight


def _backward_fake(
    grad_y: torch.Tensor | None,
    grad_h: torch.Tensor | None,
    h: torch.Tensor,
    weight: torch.Tensor | None,
    scale: torch.Tensor,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return h.new_empty(h.shape), h.new_empty(0) if weight is None else weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, residual, _, ctx.backend = inputs
    _, h, scale = output
    ctx.has_residual = residual is not None
    ctx.dtypes = x.dtype, None if residual is None else residual.dtype
    ctx.save_for_backward(x if residual is None else h, weight, scale)


def _gradients(
    ctx: Any, backward: Any, grad_y: torch.Tensor | None, grad_h: torch.Tensor | None, _: Any
) -> tuple[torch.Tensor | None, ...]:
    h, weight, scale = ctx.saved_tensors
    grad, grad_weight = backward(grad_y, grad_h if ctx.has_residual else None, h, weight, scale, ctx.backend)
    x_dtype, residual_dtype = ctx.dtypes
    return (
        grad.to(x_dtype),
        None if weight is None else grad_weight,
        None if residual_dtype is None else grad.to(residual_dtype),
        None,
        None,
    )


_apply = differentiable(
    "rms_norm",
    schema="(Tensor x, Tensor? weight, Tensor? residual, float eps, str backend) -> (Tensor, Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor? grad_y, Tensor? grad_h, Tensor h, Tensor? weight, Tensor scale, str backend)"
    " -> (Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
