"""Next-token cross-entropy from hidden states without ever holding the logits.

    loss = sum over t with target_t != -100 of  logsumexp(W h_t) - (W h_t)[target_t]

Rows are processed in chunks. While a chunk's logits exist, their gradient softmax(W h_t) - onehot(target_t) is turned
into gradients of h and W, so that the backward pass only scales them: three matrix products instead of the four of
recomputing, and memory of two chunks (chunk, V) instead of (N, V). `module_cross_entropy` does the same with the logits
of any module in place of W h.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinycore.ops.precision import product_dtype
from tinycore.targets import IGNORED

CPU_LOGITS, GPU_LOGITS = 2**21, 2**23  # of a chunk: 8 MB in float32 stay in a CPU's cache; a GPU wants fewer launches


def chunk_of(vocab_size: int, device: str = "cpu") -> int:
    """Positions of a chunk: as many as make `CPU_LOGITS` or `GPU_LOGITS` logits, at least 16."""
    return max(16, (CPU_LOGITS if device == "cpu" else GPU_LOGITS) // vocab_size)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss sum, number of targets, number predicted right) for hidden (N, D), weight (V, D), targets (N,) int64.

    Targets of -100 are left out. chunk: positions whose logits exist at one time, None = `chunk_of`. Matrix products run
    in the autocast dtype where autocast is on; softmax and sums in at least float32. The loss is differentiable once with
    respect to hidden, weight and weights. weights (N,): of each position in the two sums (not in their number), None = 1.
    """
    dtype = product_dtype(hidden)
    chunk = chunk or chunk_of(weight.shape[0], hidden.device.type)
    if not torch.is_grad_enabled():  # a Function is told which inputs require gradients, not that nobody will ask
        hidden, weight = hidden.detach(), weight.detach()
        weights = None if weights is None else weights.detach()
    with torch.autocast(hidden.device.type, enabled=False) if dtype != hidden.dtype else contextlib.nullcontext():
        loss, correct = _LinearCrossEntropy.apply(hidden, weight, targets, chunk, dtype, weights)
    return loss, (targets != IGNORED).sum(), correct


def _chunk(
    logits: Tensor, target: Tensor, need: bool, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """(loss sum, number predicted right, gradient of the logits if there is need, losses (chunk,)) of logits (chunk, V),
    target (chunk,) and weights (chunk,) or None for 1."""
    learned = target != IGNORED
    index = target.clamp(min=0)[:, None]
    best = logits.argmax(-1, keepdim=True)
    above = logits.gather(1, best) - logits.gather(1, index)
    # one pass over the logits in place of four; the largest probability is 1 / sum of exp(logit - largest logit)
    gradient = logits.softmax(-1)
    nll = (above - gradient.gather(1, best).log())[:, 0]
    losses, right = torch.where(learned, nll, 0), (best[:, 0] == target) & learned
    share = learned if weights is None else learned * weights
    loss = losses.sum() if weights is None else (losses * weights).sum()
    correct = right.sum() if weights is None else (right * weights).sum()
    if not need:
        return loss, correct, None, losses
    gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
    return loss, correct, gradient.mul_(share[:, None]), losses


def _number(weights: Tensor | None, wide: torch.dtype) -> torch.dtype:
    """What positions predicted right are counted in."""
    return torch.long if weights is None else wide


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        chunk: int,
        dtype: torch.dtype,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(dtype, torch.float32)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        matrix = weight.to(dtype)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        correct = torch.zeros((), dtype=_number(weights, wide), device=hidden.device)
        own = None if weights is None else weights.to(wide)
        each: list[Tensor] = []
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if need_weight else None
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            part, target = hidden[rows].to(dtype), targets[rows]
            given, need = None if own is None else own[rows], need_hidden or need_weight
            # no name for the logits: they are gone when their gradient is cast
            total, right, gradient, losses = _chunk((part @ matrix.t()).to(wide), target, need, given)
            each.append(losses)
            # sums are not made in place: torch 2.11 compiles that to a gradient of zero
            loss, correct = loss + total, correct + right
            if gradient is not None:
                low = gradient.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = (low @ matrix).to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += low.t() @ part
        ctx.save_for_backward(grad_hidden, grad_weight, *_of_weights(ctx.needs_input_grad[5], each, weights))
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, *losses = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad_loss.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad_loss).to(ctx.weight_dtype),
            None,
            None,
            None,
            losses[0] * grad_loss.to(losses[0].dtype) if losses else None,
        )


def _of_weights(needed: bool, losses: list[Tensor], weights: Tensor | None) -> list[Tensor]:
    """The gradient of the weights, the losses themselves, where it is needed."""
    return [torch.cat(losses).to(weights.dtype)] if needed and weights is not None else []


def module_cross_entropy(
    hidden: Tensor,
    module: nn.Module,
    targets: Tensor,
    chunk: int | None,
    vocab_size: int,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`linear_cross_entropy` with module(hidden) (N, V) as logits: its parameters get their gradients chunk by chunk too.

    While compiling, the logits of all positions are held.
    """
    count = (targets != IGNORED).sum()
    if torch.compiler.is_compiling():
        logits = module(hidden)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        right = (logits.argmax(-1) == targets) & (targets != IGNORED)
        losses = F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none")
        if weights is None:
            return losses.sum(), count, right.sum()
        return (losses * weights).sum(), count, (right * weights.detach()).sum()
    chunk = chunk or chunk_of(vocab_size, hidden.device.type)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not torch.is_grad_enabled():
        hidden, parameters = hidden.detach(), []
        weights = None if weights is None else weights.detach()
    loss, correct = _ModuleCrossEntropy.apply(hidden, module, targets, chunk, weights, *parameters)
    return loss, count, correct


class _ModuleCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        module: nn.Module,
        targets: Tensor,
        chunk: int,
        weights: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        need_hidden = ctx.needs_input_grad[0]
        wide = torch.promote_types(hidden.dtype, torch.float32)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        correct = torch.zeros((), dtype=_number(weights, wide), device=hidden.device)
        own = None if weights is None else weights.to(wide)
        each: list[Tensor] = []
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        sums: list[Tensor] = [torch.zeros_like(parameter, dtype=wide) for parameter in parameters]
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            with torch.enable_grad():
                part = hidden[rows].detach().requires_grad_(need_hidden)
                logits = module(part.view_as(part))  # hooks of modules are not for leaves here
            given, need = None if own is None else own[rows], need_hidden or bool(parameters)
            total, right, gradient, losses = _chunk(logits.detach().to(wide), targets[rows], need, given)
            each.append(losses)
            loss, correct = loss + total, correct + right
            if gradient is None:
                continue
            wanted = [part, *parameters] if need_hidden else list(parameters)
            found = list(torch.autograd.grad(logits, wanted, gradient.to(logits.dtype)))
            if grad_hidden is not None:
                grad_hidden[rows] = found.pop(0)
            for kept, new in zip(sums, found, strict=True):
                kept += new
        found = _of_weights(ctx.needs_input_grad[4], each, weights)
        ctx.weighted = bool(found)
        kept_as = (kept.to(p.dtype) for kept, p in zip(sums, parameters, strict=True))
        ctx.save_for_backward(grad_hidden, *found, *kept_as)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, *gradients = (
            None if gradient is None else gradient * grad_loss.to(gradient.dtype) for gradient in ctx.saved_tensors
        )
        of_weights = gradients.pop(0) if ctx.weighted else None
        return grad_hidden, None, None, None, of_weights, *gradients
