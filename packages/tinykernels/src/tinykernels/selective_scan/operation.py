"""Selective state space scan, the core of Mamba (S6; arXiv 2312.00752, section 3).

    step_t = softplus(delta_t + delta_bias)   or delta_t                          (D)
    h_t    = exp(step_t A) * h_{t-1} + (step_t x_t) B_t^T                         (D, N)
    y_t    = (h_t C_t + D * x_t) * silu(z_t)                                      (D)

Layout (B, L, D), where mamba_ssm's is (B, D, L). Causal: y_t reads positions <= t of its own sequence only, and
continues from `initial_state`. Unlike mamba_ssm's scan this one has an initial state, a final state that carries
gradient, and packed documents.
"""

from typing import Any

import torch
from torch.nn import functional

from tinykernels import dispatch, streams, validation
from tinykernels.registration import differentiable
from tinykernels.selective_scan import cpu, naive

OPERATION = "selective_scan"
COMPILED = "torch, compiled"  # the torch path inside a graph that the caller compiles
MAX_STATE = 64  # states a channel that the Triton kernels hold in registers


def selective_scan(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    backend: dispatch.Backend = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scan whole sequences.

    x, delta, z: (B, L, D); A: (D, N), negative for a stable scan; B, C: (B, L, N); D, delta_bias: (D,).
    Any of float32, float16, bfloat16 each (float64 on torch and naive); keep A, D and delta_bias in float32.
    delta_softplus: the step is softplus(delta + delta_bias), computed in float32; else delta + delta_bias.
    initial_state: (S, D, N), None = zeros; S = B, or the number of documents.
    cu_seqlens: (S + 1,) int32 boundaries of packed documents; B must then be 1 (see tinykernels.documents).

    Returns (y, final_state): y (B, L, D) in x's dtype, final_state (S, D, N) in float32 (float64 for float64), an
    empty document's being its initial state. The recurrence runs in float32 (float64). Gradients flow to every
    floating argument, from both results. Raises ValueError naming a bad argument, BackendError for a forced
    backend that cannot run.
    """
    _check(x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens)
    wide = torch.promote_types(x.dtype, torch.float32)
    if delta_bias is not None:
        delta = delta.to(wide) + delta_bias
    if delta_softplus:
        delta = functional.softplus(delta.to(wide))
    floating = (x, delta, A, B, C, D, z, initial_state)
    unsupported = None
    if any(tensor is not None and tensor.dtype == torch.float64 for tensor in floating):
        unsupported = "float64 runs on the torch path"
    elif A.shape[1] > MAX_STATE:
        unsupported = f"the kernels hold at most {MAX_STATE} states a channel, got {A.shape[1]}"
    chosen = dispatch.choose(OPERATION, backend, x.device, unsupported)
    if chosen == "torch" and torch.compiler.is_compiling():
        chosen = COMPILED
    if chosen == "naive":
        return naive.selective_scan(x, delta, A, B, C, D, z, initial_state, cu_seqlens)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in floating)
    y, final_state, _ = _selective_scan(x, delta, A, B, C, D, z, initial_state, cu_seqlens, save, chosen)
    return y, final_state


def selective_scan_step(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    backend: dispatch.Backend = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance every row by one token: the decoding form of `selective_scan`, with the same arithmetic.

    x, delta, z: (B, D); B, C: (B, N); state: (B, D, N). Returns (y (B, D), the next state (B, D, N) float32).
    Gradients and errors as in `selective_scan`.
    """
    validation.shapes(
        "selective_scan_step",
        x=(x, "B D"),
        delta=(delta, "B D"),
        B=(B, "B N"),
        C=(C, "B N"),
        z=(z, "B D"),
        state=(state, "B D N"),
    )
    y, state = selective_scan(
        x.unsqueeze(1),
        delta.unsqueeze(1),
        A,
        B.unsqueeze(1),
        C.unsqueeze(1),
        D,
        None if z is None else z.unsqueeze(1),
        delta_bias,
        delta_softplus,
        state,
        None,
        backend,
    )
    return y.squeeze(1), state


def _check(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> None:
    sizes = validation.shapes(
        OPERATION,
        x=(x, "B L D"),
        delta=(delta, "B L D"),
        A=(A, "D N"),
        B=(B, "B L N"),
        C=(C, "B L N"),
        D=(D, "D"),
        z=(z, "B L D"),
        delta_bias=(delta_bias, "D"),
        initial_state=(initial_state, "S D N"),
    )
    tensors = {"x": x, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z}
    tensors |= {"delta_bias": delta_bias, "initial_state": initial_state}
    validation.dtypes(OPERATION, validation.FLOATS, **tensors)
    validation.same_device(OPERATION, **tensors, cu_seqlens=cu_seqlens)
    streams.count(OPERATION, sizes["B"], sizes["L"], cu_seqlens, initial_state)


def _implementation(backend: str) -> Any:
    if backend in ("torch", COMPILED):
        return cpu
    from tinykernels.selective_scan import triton_kernels

    return triton_kernels


def _forward(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    save: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    more = (True,) if backend == COMPILED else ()
    return _implementation(backend).forward(x, delta, A, B, C, D, z, initial_state, cu_seqlens, save, *more)


def _fake(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    save: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    final = x.new_empty(sequences, *A.shape, dtype=wide)
    slots = _implementation(backend).checkpoint_count(x.shape[0] * x.shape[1], sequences) if save else 0
    return x.new_empty(x.shape), final, x.new_empty(slots, *A.shape, dtype=wide)


def _backward(
    grad_y: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    checkpoints: torch.Tensor,
    backend: str,
) -> tuple[torch.Tensor, ...]:
    return _implementation(backend).backward(
        grad_y, grad_final, x, delta, A, B, C, D, z, initial_state, cu_seqlens, checkpoints
    )


def _backward_fake(
    grad_y: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    checkpoints: torch.Tensor,
    backend: str,
) -> tuple[torch.Tensor, ...]:
    wide = checkpoints.dtype
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return (
        x.new_empty(x.shape),
        delta.new_empty(delta.shape),
        A.new_empty(A.shape, dtype=wide),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        A.new_empty(0 if D is None else D.shape[0], dtype=wide),
        x.new_empty(0) if z is None else z.new_empty(z.shape),
        x.new_empty(sequences, *A.shape, dtype=wide),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, _, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])


def _gradients(
    ctx: Any,
    backward: Any,
    grad_y: torch.Tensor | None,
    grad_final: torch.Tensor | None,
    _: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    x, delta, A, B, C, D, z, initial_state, cu_seqlens, checkpoints = ctx.saved_tensors
    grad_x, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_initial = backward(
        grad_y, grad_final, x, delta, A, B, C, D, z, initial_state, cu_seqlens, checkpoints, ctx.backend
    )
    return (
        grad_x,
        grad_delta,
        grad_A.to(A.dtype),
        grad_B,
        grad_C,
        None if D is None else grad_D.to(D.dtype),
        None if z is None else grad_z,
        None if initial_state is None else grad_initial.to(initial_state.dtype),
        None,
        None,
        None,
    )


_selective_scan = differentiable(
    "selective_scan",
    schema="(Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? initial_state,"
    " Tensor? cu_seqlens, bool save, str backend) -> (Tensor, Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor? grad_y, Tensor? grad_final, Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C,"
    " Tensor? D, Tensor? z, Tensor? initial_state, Tensor? cu_seqlens, Tensor checkpoints, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
