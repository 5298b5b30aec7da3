"""Cross entropy of a linear head, chunk by chunk: the logits (N, V) never exist as a whole.

logits = hidden weight^T, or softcap * tanh(. / softcap);  Z = logsumexp(logits)
loss = sum or mean over targets != ignore_index of  Z - logits[target] + z_loss * Z^2

Gradients are made in the forward, while a chunk's logits are still in the cache (Liger, arXiv:2410.10989;
the same arithmetic as cut cross-entropy, arXiv:2411.09009, with the logits made once); z-loss is PaLM's
(arXiv:2204.02311). Nothing waits for the device. Targets are used as given: nothing is shifted here.
"""

from typing import Any, Literal

import torch

from tinykernels import validation
from tinykernels.dispatch import Backend, choose
from tinykernels.linear_cross_entropy import chunks, cpu, naive
from tinykernels.registration import autocast, differentiable


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    z_loss: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    backend: Backend = "auto",
) -> torch.Tensor:
    """The loss, a float32 scalar (float64 for float64) in nats; 0 where every target is ignored.

    hidden: (..., D); weight: (V, D), one floating dtype (autocast's where it is on); targets: (...) int64
    in [0, V) or ignore_index. softcap: bound of the logits' size or None; z_loss: weight of Z^2. "mean" is
    over kept targets. Raises ValueError naming the argument; a target outside the vocabulary raises on a
    CPU and gives NaN on a GPU.
    """
    hidden, weight = _check(hidden, weight, targets, ignore_index, softcap, z_loss, reduction)
    unsupported = None
    if hidden.dtype == torch.float64:
        unsupported = "the kernels compute in float32, not float64"
    chosen = choose("linear_cross_entropy", backend, hidden.device, unsupported)
    flat, labels = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    mean = reduction == "mean"
    if chosen == "naive":
        return naive.linear_cross_entropy(flat, weight, labels, ignore_index, softcap, z_loss, mean)
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _apply(flat, weight, labels, ignore_index, softcap, z_loss, mean, needs_gradient, chosen)[0]


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    softcap: float | None,
    z_loss: float,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    name = "linear_cross_entropy"
    if not isinstance(hidden, torch.Tensor) or hidden.dim() < 1:
        raise ValueError(f"{name}: hidden must be a tensor (..., D)")
    vocabulary = validation.shapes(name, weight=(weight, f"V {hidden.shape[-1]}"))["V"]
    if targets.shape != hidden.shape[:-1]:
        expected = tuple(hidden.shape[:-1])
        raise ValueError(f"{name}: targets must have hidden's shape {expected}, got {tuple(targets.shape)}")
    if vocabulary < 1:
        raise ValueError(f"{name}: weight must have at least one row")
    validation.dtypes(name, (torch.int64,), targets=targets)
    hidden, weight = autocast(hidden, weight)
    validation.dtypes(name, validation.FLOATS, hidden=hidden)
    validation.same_dtype(name, hidden=hidden, weight=weight)
    validation.same_device(name, hidden=hidden, weight=weight, targets=targets)
    validation.positive(name, softcap=softcap)
    if not 0 <= z_loss < float("inf"):
        raise ValueError(f"{name}: z_loss must be a finite number, not negative, got {z_loss}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'mean' or 'sum', got {reduction!r}")
    if not torch.compiler.is_compiling() and targets.device.type == "cpu":
        wrong = ((targets < 0) | (targets >= vocabulary)) & (targets != ignore_index)
        if wrong.any():
            raise ValueError(
                f"{name}: targets must be in [0, {vocabulary}) or {ignore_index}, got {targets[wrong][0].item()}"
            )
    return hidden, weight


def _forward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    softcap: float | None,
    z_loss: float,
    mean: bool,
    needs_gradient: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    step = cpu.loss_and_gradient
    if backend == "triton":
        from tinykernels.linear_cross_entropy import triton_kernels

        step = triton_kernels.loss_and_gradient
    wide = torch.promote_types(hidden.dtype, torch.float32)
    tokens, vocabulary = hidden.shape[0], weight.shape[0]
    hidden, targets = hidden.contiguous(), targets.contiguous()
    losses = torch.empty(tokens, dtype=wide, device=hidden.device)
    grad_hidden = torch.empty_like(hidden) if needs_gradient else hidden.new_empty(0)
    grad_weight = torch.zeros(weight.shape if needs_gradient else 0, dtype=wide, device=weight.device)
    rows = chunks.rows_of_chunk(tokens, vocabulary, hidden.element_size(), hidden.device)
    buffer = torch.empty(rows, vocabulary, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, tokens, rows):
        part = slice(start, min(start + rows, tokens))
        logits = torch.mm(hidden[part], weight.T, out=buffer[: part.stop - start])
        step(logits, targets[part], losses[part], ignore_index, softcap, z_loss, needs_gradient)
        if needs_gradient:
            torch.mm(logits, weight, out=grad_hidden[part])
            chunks.accumulate(grad_weight, logits, hidden[part])
    count = (targets != ignore_index).sum() if mean else torch.ones((), device=hidden.device)
    inverse_count = count.clamp(min=1).to(wide).reciprocal()
    return losses.sum() * inverse_count, grad_hidden, grad_weight, inverse_count


def _fake(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    softcap: float | None,
    z_loss: float,
    mean: bool,
    needs_gradient: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    scalar = hidden.new_empty((), dtype=wide)
    return (
        scalar,
        hidden.new_empty(hidden.shape if needs_gradient else 0),
        weight.new_empty(weight.shape if needs_gradient else 0, dtype=wide),
        torch.empty_like(scalar),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, grad_hidden, grad_weight, inverse_count = output
    ctx.save_for_backward(grad_hidden, grad_weight, inverse_count, inputs[1])


def _gradients(ctx: Any, backward: Any, grad_loss: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad_loss is None:
        return (None,) * 9
    return (*backward(grad_loss, *ctx.saved_tensors), *(None,) * 7)


_apply = differentiable(
    "linear_cross_entropy",
    schema="(Tensor hidden, Tensor weight, Tensor targets, int ignore_index, float? softcap, float z_loss, bool mean,"
    " bool needs_gradient, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema=chunks.SCALED_SCHEMA,
    backward=chunks.scaled,
    backward_fake=chunks.scaled_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
