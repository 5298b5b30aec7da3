"""Gated linear recurrence: the token mixer of MLGRU (arXiv 2406.02528) and HGRN (arXiv 2311.04823).

    h_t = forget_t * h_{t-1} + value_t        elementwise over (B, L, D), t = 0 .. L-1

Causal: h_t reads positions <= t of its own sequence only, and continues from `initial_state`.
"""

from typing import Any

import torch

from tinykernels import dispatch, streams, validation
from tinykernels.gated_scan import cpu, naive
from tinykernels.registration import differentiable


def gated_scan(
    forget: torch.Tensor,
    value: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    backend: dispatch.Backend = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run h_t = forget_t * h_{t-1} + value_t along time.

    forget, value: (B, L, D) of one dtype (float32, float16, bfloat16; float64 on torch and naive).
    initial_state: (N, D), any of these dtypes; None = zeros. N = B, or the number of documents.
    cu_seqlens: (N + 1,) int32 boundaries of packed documents; B must then be 1 (see tinykernels.documents).

    Returns (h, final_state): h (B, L, D) in forget's dtype, final_state (N, D) in float32 (float64 for float64),
    an empty document's being its initial state. The recurrence runs in float32 (float64). Gradients flow to
    forget, value and initial_state, from both results. Raises ValueError naming a bad argument, BackendError for
    a forced backend that cannot run.
    """
    name = "gated_scan"
    sizes = validation.shapes(
        name, forget=(forget, "B L D"), value=(value, "B L D"), initial_state=(initial_state, "N D")
    )
    validation.dtypes(name, validation.FLOATS, forget=forget, initial_state=initial_state)
    validation.same_dtype(name, forget=forget, value=value)
    validation.same_device(name, forget=forget, value=value, initial_state=initial_state, cu_seqlens=cu_seqlens)
    streams.count(name, sizes["B"], sizes["L"], cu_seqlens, initial_state)
    unsupported = "float64 runs on the torch path" if forget.dtype == torch.float64 else None
    chosen = dispatch.choose(name, backend, forget.device, unsupported)
    if chosen == "naive":
        return naive.gated_scan(forget, value, initial_state, cu_seqlens)
    return _gated_scan(forget, value, initial_state, cu_seqlens, chosen)


def _forward(
    forget: torch.Tensor,
    value: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "triton":
        from tinykernels.gated_scan import triton_kernels

        return triton_kernels.forward(forget, value, initial_state, cu_seqlens)
    return cpu.forward(forget, value, initial_state, cu_seqlens)


def _fake(
    forget: torch.Tensor,
    value: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    sequences = forget.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    dtype = torch.promote_types(forget.dtype, torch.float32)
    return forget.new_empty(forget.shape), forget.new_empty(sequences, forget.shape[2], dtype=dtype)


def _backward(
    grad_hidden: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    forget: torch.Tensor,
    hidden: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if backend == "triton":
        from tinykernels.gated_scan import triton_kernels

        return triton_kernels.backward(grad_hidden, grad_final, forget, hidden, initial_state, cu_seqlens)
    return cpu.backward(grad_hidden, grad_final, forget, hidden, initial_state, cu_seqlens)


def _backward_fake(
    grad_hidden: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    forget: torch.Tensor,
    hidden: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    final = _fake(forget, forget, initial_state, cu_seqlens, backend)[1]
    return forget.new_empty(forget.shape), forget.new_empty(forget.shape), final


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    forget, _, initial_state, cu_seqlens, ctx.backend = inputs
    ctx.save_for_backward(forget, output[0], initial_state, cu_seqlens)


def _gradients(
    ctx: Any, backward: Any, grad_hidden: torch.Tensor | None, grad_final: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    forget, hidden, initial_state, cu_seqlens = ctx.saved_tensors
    grad_forget, grad_value, grad_initial = backward(
        grad_hidden, grad_final, forget, hidden, initial_state, cu_seqlens, ctx.backend
    )
    if initial_state is None:
        return grad_forget, grad_value, None, None, None
    return grad_forget, grad_value, grad_initial.to(initial_state.dtype), None, None


_gated_scan = differentiable(
    "gated_scan",
    schema="(Tensor forget, Tensor value, Tensor? initial_state, Tensor? cu_seqlens, str backend) -> (Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor? grad_hidden, Tensor? grad_final, Tensor forget, Tensor hidden,"
    " Tensor? initial_state, Tensor? cu_seqlens, str backend) -> (Tensor, Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
