"""The selective state space scan of Mamba (S6, arXiv 2312.00752, section 3), with its step size and its gate:

    step_t = softplus(delta_t + bias)                             (C); 0 at padding, which passes the state through
    h_t    = exp(step_t A) * h_{t-1} + (step_t x_t) B_t^T         (C, N); h_{t-1} = 0 where a document starts
    y_t    = (h_t C_t + D * x_t) * silu(z_t)                      (C)

Causal: y_t reads tokens up to t of its own document. The work is done in `tinycore.ops.selective_scan_chunks`; on a GPU
by the kernel of `tinykernels`, where that is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinycore.ops import kernels
from tinycore.ops import selective_scan_chunks as chunks


class Pieces(NamedTuple):
    """Rows laid end to end, cut where documents start: `boundaries` (N + 1,) int32 of the pieces, and for each row its first
    and last piece (B,)."""

    boundaries: Tensor
    firsts: Tensor
    lasts: Tensor


@dataclass(frozen=True)
class Marks:
    """Where packed rows differ from single documents, (B, T) bool each."""

    starts: Tensor  # a document starts, other than the one that the initial state is of
    valid: Tensor  # no padding

    @cached_property
    def pieces(self) -> Pieces:
        """Found once for all layers of the same marks: how many there are, a GPU must be waited for."""
        rows, length = self.starts.shape
        begins = self.starts.clone()
        begins[:, 0] = True
        cuts = begins.flatten().nonzero()[:, 0]  # where a piece of a row begins; the first piece of a row has its state
        firsts = torch.searchsorted(cuts, torch.arange(rows, device=cuts.device) * length)
        lasts = torch.cat([firsts[1:] - 1, firsts.new_tensor([len(cuts) - 1])])
        return Pieces(F.pad(cuts, (0, 1), value=rows * length).to(torch.int32), firsts, lasts)


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    bias: Tensor,
    marks: Marks | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan rows from `initial` (B, C, N), None = zeros -> y (B, T, C) in x's dtype, the state after T tokens (B, C, N).

    x, delta, z (B, T, C); A (C, N), negative; B, C (B, T, N); D, bias (C,), bias of the step size. Computed in at least
    float32; the state is not rounded to x's dtype. Differentiable once, from both results. Raises ValueError without a token.
    """
    if x.shape[1] == 0:
        raise ValueError("selective_scan: needs at least one token")
    if kernels.usable(x) and (marks is None or not torch.compiler.is_compiling()):
        return by_kernel(kernels.tinykernels.selective_scan, x, delta, A, B, C, D, z, bias, marks, initial)
    starts, valid = (None, None) if marks is None else (marks.starts, marks.valid)
    floating = (x, delta, A, B, C, D, z, bias, initial)
    save = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in floating)
    # a graph must not unroll the loop, and on the meta device there is nothing to walk
    opaque = torch.compiler.is_compiling() or x.device.type == "meta"
    run = _operator if opaque else _SelectiveScan.apply
    y, final, _ = run(x, delta, A, B, C, D, z, bias, starts, valid, initial, save)
    return y, final.transpose(1, 2)


def by_kernel(
    scan: Any,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    bias: Tensor,
    marks: Marks | None,
    initial: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same by `tinykernels.selective_scan`, which takes rows laid end to end, cut where documents start."""
    if marks is None:
        return scan(x, delta, A, B, C, D, z, bias, True, initial)
    rows, length, _ = x.shape
    boundaries, firsts, lasts = marks.pieces
    if initial is not None:
        kept = initial * ~marks.starts[:, 0, None, None]
        initial = kept.new_zeros(len(boundaries) - 1, *initial.shape[1:]).index_copy(0, firsts, kept)
    step = F.softplus(delta.to(torch.promote_types(delta.dtype, torch.float32)) + bias) * marks.valid[..., None]
    flat = [tensor.reshape(1, rows * length, -1) for tensor in (x, step, B, C, z)]
    y, final = scan(*flat[:2], A, *flat[2:4], D, flat[4], None, False, initial, boundaries)
    return y.view(x.shape), final[lasts]


class _SelectiveScan(torch.autograd.Function):
    """What eager mode calls."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        results = chunks.forward(*arguments)
        _save(ctx, arguments, results)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_final: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        return _arranged(ctx, chunks.backward(grad, grad_final, *ctx.saved_tensors))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:-1], output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _arranged(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients in the order of the arguments: those of x .. bias, none of the marks, that of the initial state."""
    initial = ctx.saved_tensors[10]
    return *grads[:8], None, None, None if initial is None else grads[8], None


TENSORS = ", ".join(f"Tensor {name}" for name in ("x", "delta", "A", "B", "C", "D", "z", "bias"))
OPTIONAL = "Tensor? starts, Tensor? valid, Tensor? initial"


@torch.library.custom_op(
    "tinycore::selective_scan",
    mutates_args=(),
    schema=f"({TENSORS}, {OPTIONAL}, bool save) -> (Tensor, Tensor, Tensor)",
)
def _operator(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return chunks.forward(*arguments)


@torch.library.custom_op(
    "tinycore::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor? grad, Tensor? grad_final, {TENSORS}, {OPTIONAL}, Tensor begins) -> Tensor[]",
)
def _operator_backward(*arguments: Any) -> list[Tensor]:
    return chunks.backward(*arguments)


@_operator.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, A, save = arguments[0], arguments[2], arguments[-1]
    (rows, length, channels), states = x.shape, A.shape[1]
    kept = -(-length // chunks.length_of(rows, channels, states)) if save else 0
    state = x.new_empty(rows, states, channels, dtype=torch.promote_types(x.dtype, torch.float32))
    return x.new_empty(x.shape), state, state.new_empty(kept, *state.shape)


@_operator_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    inputs, initial, begins = arguments[2:10], arguments[12], arguments[13]
    of_initial = begins if initial is None else initial
    state = of_initial.new_empty(begins.shape[1], begins.shape[3], begins.shape[2])
    return [tensor.new_empty(tensor.shape) for tensor in inputs] + [state]


def _gradients(ctx: Any, grad: Tensor | None, grad_final: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    return _arranged(ctx, _operator_backward(grad, grad_final, *ctx.saved_tensors))


_operator.register_autograd(_gradients, setup_context=_save)
