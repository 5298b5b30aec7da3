"""Depthwise causal convolution over time, as it stands before a Mamba scan (arXiv 2312.00752) and in Canon layers.

    y_t = act(bias + sum_{j=0}^{W-1} weight[:, W-1-j] * x_{t-j})          (B, L, D), act = identity or silu

Causal: y_t reads x_{t-W+1} .. x_t of its own sequence only; before the first position stand the initial state's
W - 1 rows, or zeros.
"""

from typing import Any, Literal

import torch

from tinykernels import dispatch, streams, validation
from tinykernels.causal_conv1d import cpu, naive
from tinykernels.registration import differentiable

OPERATION = "causal_conv1d"
MAX_WIDTH = 8  # taps: the Triton kernels hold 2 W - 1 shifted tiles in registers


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: Literal["silu"] | None = None,
    initial_state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    backend: dispatch.Backend = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convolve each channel with its own W >= 2 taps.

    x: (B, L, D); weight: (D, W), the last tap on the present; bias: (D,). Any of float32, float16, bfloat16 each
    (float64 on torch and naive); sums run in float32 (float64). activation: None or "silu".
    initial_state: (S, W - 1, D), the inputs before the first, oldest first; None = zeros. S = B, or documents.
    cu_seqlens: (S + 1,) int32 boundaries of packed documents; B must then be 1 (see tinykernels.documents).

    Returns (y, final_state): y (B, L, D) and final_state (S, W - 1, D), each sequence's last inputs, in x's dtype;
    one call with final_state as the next call's initial_state gives what one long call gives (decoding is L = 1).
    Gradients flow to every floating argument, from both results. Raises ValueError naming a bad argument,
    BackendError for a forced backend that cannot run.
    """
    sizes = validation.shapes(
        OPERATION,
        x=(x, "B L D"),
        weight=(weight, "D W"),
        bias=(bias, "D"),
        initial_state=(initial_state, "S K D"),
    )
    width = sizes["W"]
    if width < 2:
        raise ValueError(f"{OPERATION}: weight must have at least 2 taps, got shape {tuple(weight.shape)}")
    if sizes.get("K", width - 1) != width - 1:
        raise ValueError(
            f"{OPERATION}: initial_state must have {width - 1} rows a sequence (taps - 1), "
            f"got shape {tuple(initial_state.shape) if initial_state is not None else ()}"
        )
    if activation not in (None, "silu"):
        raise ValueError(f"{OPERATION}: activation must be None or 'silu', got {activation!r}")
    tensors = {"x": x, "weight": weight, "bias": bias, "initial_state": initial_state}
    validation.dtypes(OPERATION, validation.FLOATS, **tensors)
    validation.same_device(OPERATION, **tensors, cu_seqlens=cu_seqlens)
    streams.count(OPERATION, sizes["B"], sizes["L"], cu_seqlens, initial_state)
    unsupported = None
    if any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors.values()):
        unsupported = "float64 runs on the torch path"
    elif width > MAX_WIDTH:
        unsupported = f"the kernels hold at most {MAX_WIDTH} taps, got {width}"
    chosen = dispatch.choose(OPERATION, backend, x.device, unsupported)
    if chosen == "naive":
        y = naive.causal_conv1d(x, weight, bias, activation == "silu", initial_state, cu_seqlens)
    else:
        y = _causal_conv1d(x, weight, bias, initial_state, cu_seqlens, activation == "silu", chosen)
    return y, _final_state(x, width, initial_state, cu_seqlens)


def _final_state(
    x: torch.Tensor, width: int, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> torch.Tensor:
    """The last W - 1 inputs of each sequence (S, W - 1, D), reaching into its initial state where it is shorter."""
    kept = width - 1
    length = x.shape[1]
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    if initial_state is None:
        initial_state = x.new_zeros(sequences, kept, x.shape[2])
    initial_state = initial_state.to(x.dtype)
    if cu_seqlens is None:
        if length >= kept:
            return x[:, length - kept :].clone()
        return torch.cat([initial_state[:, length:], x], 1)
    steps = torch.arange(kept, device=x.device)
    source = cu_seqlens[1:, None] - kept + steps  # (S, W - 1) positions in the stream
    before = source - cu_seqlens[:-1, None]  # negative: not in the document, but in its initial state
    from_x = x[0, source.clamp(min=0)]  # (S, W - 1, D)
    slot = (before + kept).clamp(0, kept - 1)[:, :, None].expand(-1, -1, x.shape[2])
    return torch.where((before >= 0)[:, :, None], from_x, initial_state.gather(1, slot.to(torch.int64)))


def _implementation(backend: str) -> Any:
    if backend == "torch":
        return cpu
    from tinykernels.causal_conv1d import triton_kernels

    return triton_kernels


def _forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
    backend: str,
) -> torch.Tensor:
    return _implementation(backend).forward(x, weight, bias, initial_state, cu_seqlens, silu)


def _fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
    backend: str,
) -> torch.Tensor:
    return x.new_empty(x.shape)


def _backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return _implementation(backend).backward(grad_y, x, weight, bias, initial_state, cu_seqlens, silu)


def _backward_fake(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    dim, width = weight.shape
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape, dtype=wide),
        weight.new_empty(dim, dtype=wide),
        x.new_empty(sequences, width - 1, dim, dtype=wide),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.silu, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, backward: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, weight, bias, initial_state, cu_seqlens = ctx.saved_tensors
    grad_x, grad_weight, grad_bias, grad_initial = backward(
        grad_y, x, weight, bias, initial_state, cu_seqlens, ctx.silu, ctx.backend
    )
    return (
        grad_x,
        grad_weight.to(weight.dtype),
        None if bias is None else grad_bias.to(bias.dtype),
        None if initial_state is None else grad_initial.to(initial_state.dtype),
        None,
        None,
        None,
    )


_causal_conv1d = differentiable(
    "causal_conv1d",
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? cu_seqlens, bool silu,"
    " str backend) -> Tensor",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor grad_y, Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state,"
    " Tensor? cu_seqlens, bool silu, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
