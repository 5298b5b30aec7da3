"""RMS norm of each query and key head, then their rotation by position: what stands between projection and
attention.

x^ = x / sqrt(mean(x^2) + eps) * weight over D;   halves (x1, x2) of x^ become (x1 cos - x2 sin, x2 cos + x1
sin)

Rotary positions are RoFormer's (arXiv:2104.09864), paired by halves as in GPT-NeoX and Llama; query-key
norm is arXiv:2010.04245 with RMS norm. Statistics are float32. Tokens do not see each other.
"""

from typing import Any

import torch

from tinykernels import validation
from tinykernels.dispatch import Backend, choose
from tinykernels.registration import differentiable
from tinykernels.rotary_qk_norm import cpu, naive


def rotary_qk_norm(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor | None = None,
    k_weight: torch.Tensor | None = None,
    *,
    eps: float | None = 1e-5,
    backend: Backend = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normed and rotated q (B, T, H, D) and k (B, T, G, D), contiguous, in their dtype.

    q, k: floating, one dtype, D even; cos, sin: (T, D / 2), or (B, T, D / 2) where rows stand at different
    positions, without gradient; q_weight, k_weight: (D,) floating or None for 1; eps: None rotates without
    norming. Raises ValueError naming the argument.
    """
    name = "rotary_qk_norm"
    sizes = validation.shapes(name, q=(q, "B T H D"), k=(k, "B T G D"))
    size = sizes["D"]
    if size < 2 or size % 2:
        raise ValueError(f"{name}: q must have an even head size, got {size}")
    validation.shapes(name, q_weight=(q_weight, str(size)), k_weight=(k_weight, str(size)))
    for label, value in (("cos", cos), ("sin", sin)):
        expected = ((sizes["T"], size // 2), (sizes["B"], sizes["T"], size // 2))
        if not isinstance(value, torch.Tensor) or value.shape not in expected or value.shape != cos.shape:
            raise ValueError(f"{name}: {label} must have shape {expected[0]} or {expected[1]}, the same for both")
    validation.dtypes(name, validation.FLOATS, q=q, cos=cos, q_weight=q_weight, k_weight=k_weight)
    validation.same_dtype(name, q=q, k=k)
    validation.same_dtype(name, cos=cos, sin=sin)
    validation.same_device(name, q=q, k=k, cos=cos, sin=sin, q_weight=q_weight, k_weight=k_weight)
    validation.positive(name, eps=eps)
    unsupported = None
    if torch.float64 in (q.dtype, cos.dtype):
        unsupported = "the kernels compute in float32, not float64"
    chosen = choose(name, backend, q.device, unsupported)
    cos, sin = (t.detach() if t.dim() == 3 else t.detach()[None] for t in (cos, sin))
    if chosen == "triton":
        return _apply(q, k, cos, sin, q_weight, k_weight, eps)
    path = naive if chosen == "naive" else cpu
    cos, sin = (t.expand(sizes["B"], -1, -1) for t in (cos, sin))
    return path.rotary_norm(q, cos, sin, q_weight, eps), path.rotary_norm(k, cos, sin, k_weight, eps)


def _unit_stride(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    from tinykernels.rotary_qk_norm import triton_kernels

    q, k = _unit_stride(q), _unit_stride(k)
    return triton_kernels.forward(q, k, cos.contiguous(), sin.contiguous(), q_weight, k_weight, eps)


def _fake(q: torch.Tensor, k: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _backward(
    grad_q_out: torch.Tensor | None,
    grad_k_out: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from tinykernels.rotary_qk_norm import triton_kernels

    grad_q_out = torch.zeros_like(q) if grad_q_out is None else grad_q_out
    grad_k_out = torch.zeros_like(k) if grad_k_out is None else grad_k_out
    return triton_kernels.backward(
        grad_q_out.contiguous(),
        grad_k_out.contiguous(),
        _unit_stride(q),
        _unit_stride(k),
        cos.contiguous(),
        sin.contiguous(),
        q_weight,
        k_weight,
        eps,
    )


def _backward_fake(
    grad_q_out: torch.Tensor | None,
    grad_k_out: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    *_: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights = q.new_empty((2, q.shape[3]), dtype=torch.float32)
    return q.new_empty(q.shape), k.new_empty(k.shape), weights


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.eps = inputs[6]
    ctx.save_for_backward(*inputs[:6])


def _gradients(
    ctx: Any, backward: Any, grad_q_out: torch.Tensor | None, grad_k_out: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    _, _, _, _, q_weight, k_weight = ctx.saved_tensors
    grad_q, grad_k, weights = backward(grad_q_out, grad_k_out, *ctx.saved_tensors, ctx.eps)
    grad_q_weight = None if q_weight is None else weights[0].to(q_weight.dtype)
    grad_k_weight = None if k_weight is None else weights[1].to(k_weight.dtype)
    return grad_q, grad_k, None, None, grad_q_weight, grad_k_weight, None


_apply = differentiable(
    "rotary_qk_norm",
    schema="(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? q_weight, Tensor? k_weight, float? eps)"
    " -> (Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor? grad_q_out, Tensor? grad_k_out, Tensor q, Tensor k, Tensor cos, Tensor sin,"
    " Tensor? q_weight, Tensor? k_weight, float? eps) -> (Tensor, Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
