"""The gated linear recurrence of HGRN (arXiv 2311.04823) and MLGRU (arXiv 2406.02528), elementwise in every channel:

    h_t = f_t * h_{t-1} + i_t        t = 0 .. T-1, h_{-1} = the initial state

Causal: h_t reads tokens up to t of its own row. A document begins where f_t is 0, and padding that is to be passed through
has f_t = 1 and i_t = 0 (`tinycore.ops.documents` says where that is).

Rows are cut into chunks of K tokens. All chunks advance together, each keeping the products of its gates; then the state
goes from chunk to chunk: T/K + K steps over long vectors in place of T over short ones, and no division, which gates of 0
would not bear. The backward pass is the same recurrence against time. On a GPU the kernel of `tinykernels` does it, where
that is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinycore.ops import kernels

CHUNK = 16  # tokens


def gated_scan(forget: Tensor, value: Tensor, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """forget, value (B, T, C) of one dtype, initial (B, C), None = zeros -> h (B, T, C), the state after T tokens (B, C).

    Computed in at least float32; h has forget's dtype, the state is not rounded to it. Differentiable once, with respect
    to all three and from both results. Raises ValueError for shapes or dtypes that do not agree.
    """
    if forget.shape != value.shape or forget.dtype != value.dtype or forget.ndim != 3:
        raise ValueError(
            f"gated_scan: forget and value must be (B, T, C) of one dtype, got {tuple(forget.shape)} {forget.dtype} "
            f"and {tuple(value.shape)} {value.dtype}"
        )
    rows, length, channels = forget.shape
    if initial is not None and initial.shape != (rows, channels):
        raise ValueError(f"gated_scan: initial must be {(rows, channels)}, got {tuple(initial.shape)}")
    if length == 0:
        raise ValueError("gated_scan: needs at least one token")
    if kernels.usable(forget):
        return kernels.tinykernels.gated_scan(forget.contiguous(), value.contiguous(), initial)
    if torch.compiler.is_compiling():
        return _operator(forget, value, initial)
    return _GatedScan.apply(forget, value, initial)


class _GatedScan(torch.autograd.Function):
    """What eager mode calls."""

    @staticmethod
    def forward(ctx: Any, forget: Tensor, value: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, final = _forward(forget, value, initial)
        ctx.save_for_backward(forget, hidden, initial)
        ctx.set_materialize_grads(False)
        return hidden, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
        forget, hidden, initial = ctx.saved_tensors
        grads = _backward(grad, grad_final, forget, hidden, initial)
        return *grads[:2], None if initial is None else grads[2]


@torch.library.custom_op("tinycore::gated_scan", mutates_args=())
def _operator(forget: Tensor, value: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a compiled graph calls: its loop of many steps would be unrolled there."""
    return _forward(forget, value, initial)


@torch.library.custom_op("tinycore::gated_scan_backward", mutates_args=())
def _operator_backward(
    grad: Tensor | None, grad_final: Tensor | None, forget: Tensor, hidden: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(grad, grad_final, forget, hidden, initial)


@_operator.register_fake
def _(forget: Tensor, value: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    rows, _, channels = forget.shape
    return forget.new_empty(forget.shape), forget.new_empty(rows, channels, dtype=_wide(forget))


@_operator_backward.register_fake
def _(
    grad: Tensor | None, grad_final: Tensor | None, forget: Tensor, hidden: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    rows, _, channels = forget.shape
    state = forget.new_empty(rows, channels, dtype=_wide(forget) if initial is None else initial.dtype)
    return forget.new_empty(forget.shape), forget.new_empty(forget.shape), state


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    forget, _, initial = inputs
    ctx.save_for_backward(forget, output[0], initial)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
    forget, hidden, initial = ctx.saved_tensors
    grads = _operator_backward(grad, grad_final, forget, hidden, initial)
    return *grads[:2], None if initial is None else grads[2]


_operator.register_autograd(_gradients, setup_context=_save)


def _forward(forget: Tensor, value: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    length = forget.shape[1]
    gates, states = _chunked(forget), _chunked(value)
    if initial is not None:
        states[:, 0, 0] += gates[:, 0, 0] * initial
    for step in range(1, states.shape[2]):
        states[:, :, step].addcmul_(gates[:, :, step], states[:, :, step - 1])
        gates[:, :, step] *= gates[:, :, step - 1]
    for chunk in range(1, states.shape[1]):
        states[:, chunk, -1].addcmul_(gates[:, chunk, -1], states[:, chunk - 1, -1])
    states[:, 1:, :-1].addcmul_(gates[:, 1:, :-1], states[:, :-1, -1:])
    hidden = states.flatten(1, 2)[:, :length]
    final = hidden[:, -1].clone()
    return hidden.to(forget.dtype).contiguous(), final


def _backward(
    grad: Tensor | None, grad_final: Tensor | None, forget: Tensor, hidden: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of forget, value and initial: g_t = dh_t + f_{t+1} g_{t+1} is value's."""
    rows, length, channels = forget.shape
    gates = _chunked(forget[:, 1:], length)  # of the token after each; nothing comes after the last
    grads = torch.zeros_like(gates) if grad is None else _chunked(grad)
    if grad_final is not None:
        grads.view(rows, -1, channels)[:, length - 1] += grad_final
    for step in range(grads.shape[2] - 2, -1, -1):
        grads[:, :, step].addcmul_(gates[:, :, step], grads[:, :, step + 1])
        gates[:, :, step] *= gates[:, :, step + 1]
    for chunk in range(grads.shape[1] - 2, -1, -1):
        grads[:, chunk, 0].addcmul_(gates[:, chunk, 0], grads[:, chunk + 1, 0])
    grads[:, :-1, 1:].addcmul_(gates[:, :-1, 1:], grads[:, 1:, :1])
    grads = grads.view(rows, -1, channels)[:, :length]

    grad_forget = torch.empty_like(grads)
    torch.mul(grads[:, 1:], hidden[:, :-1], out=grad_forget[:, 1:])
    grad_forget[:, 0] = 0 if initial is None else grads[:, 0] * initial
    state = grads[:, 0] * forget[:, 0]
    return (
        grad_forget.to(forget.dtype),
        grads.to(forget.dtype).contiguous(),
        state if initial is None else state.to(initial.dtype),
    )


def _chunked(x: Tensor, length: int | None = None) -> Tensor:
    """A copy (B, T / K, K, C) in at least float32, with zeros after the last of `length` tokens, by default x's."""
    rows, given, channels = x.shape
    length = length or given
    chunk = min(CHUNK, length)
    padded = -(-length // chunk) * chunk
    copy = x.new_empty(rows, padded, channels, dtype=_wide(x))
    copy[:, :given] = x
    copy[:, given:] = 0
    return copy.view(rows, padded // chunk, chunk, channels)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
