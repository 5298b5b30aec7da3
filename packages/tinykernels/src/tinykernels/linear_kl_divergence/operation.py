"""Distillation loss between two linear heads, chunk by chunk: neither model's logits (N, V) exist as a whole.

p = softmax(teacher_hidden teacher_weight^T / temperature),  q = softmax(hidden weight^T / temperature)
forward: sum over v of p (log p - log q)        reverse: sum over v of q (log q - log p)

times temperature^2, which keeps the gradient's size independent of the temperature (Hinton et al.,
arXiv:1503.02531); the reverse direction is MiniLLM's (arXiv:2306.08543). The mean is over tokens, not over
batch rows, so it does not grow with the length. The teacher gets no gradient. Gradients are made in the
forward; nothing waits for the device.
"""

from typing import Any, Literal

import torch

from tinykernels import validation
from tinykernels.dispatch import Backend, choose
from tinykernels.linear_cross_entropy import chunks
from tinykernels.linear_kl_divergence import cpu, naive
from tinykernels.registration import autocast, differentiable


def linear_kl_divergence(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_weight: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    direction: Literal["forward", "reverse"] = "forward",
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    backend: Backend = "auto",
) -> torch.Tensor:
    """The divergence, a float32 scalar (float64 for float64) in nats; 0 where the mask keeps nothing.

    hidden: (..., D), weight: (V, D): the student; teacher_hidden: (..., E), teacher_weight: (V, E); one
    floating dtype (autocast's where it is on). mask: (...) bool, True where a token counts, None for all.
    Raises ValueError naming the argument.
    """
    name = "linear_kl_divergence"
    for label, value in (("hidden", hidden), ("teacher_hidden", teacher_hidden)):
        if not isinstance(value, torch.Tensor) or value.dim() < 1:
            raise ValueError(f"{name}: {label} must be a tensor (..., D)")
    tokens = hidden.shape[:-1]
    if teacher_hidden.shape[:-1] != tokens or (mask is not None and mask.shape != tokens):
        raise ValueError(f"{name}: teacher_hidden and mask must have hidden's leading shape {tuple(tokens)}")
    width, teacher_width = hidden.shape[-1], teacher_hidden.shape[-1]
    validation.shapes(name, weight=(weight, f"V {width}"), teacher_weight=(teacher_weight, f"V {teacher_width}"))
    hidden, weight, teacher_hidden, teacher_weight = autocast(hidden, weight, teacher_hidden, teacher_weight)
    tensors = {
        "hidden": hidden,
        "weight": weight,
        "teacher_hidden": teacher_hidden,
        "teacher_weight": teacher_weight,
    }
    validation.dtypes(name, validation.FLOATS, hidden=hidden)
    validation.same_dtype(name, **tensors)
    validation.same_device(name, **tensors, mask=mask)
    validation.dtypes(name, (torch.bool,), mask=mask)
    validation.positive(name, temperature=temperature)
    if direction not in ("forward", "reverse"):
        raise ValueError(f"{name}: direction must be 'forward' or 'reverse', got {direction!r}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'mean' or 'sum', got {reduction!r}")
    unsupported = None
    if hidden.dtype == torch.float64:
        unsupported = "the kernels compute in float32, not float64"
    chosen = choose(name, backend, hidden.device, unsupported)
    if mask is None:
        mask = torch.ones(tokens, dtype=torch.bool, device=hidden.device)
    flat = (
        hidden.reshape(-1, width),
        weight,
        teacher_hidden.detach().reshape(-1, teacher_width),
        teacher_weight.detach(),
        mask.reshape(-1),
    )
    options = (float(temperature), direction == "reverse", reduction == "mean")
    if chosen == "naive":
        return naive.linear_kl_divergence(*flat, *options)
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _apply(*flat, *options, needs_gradient, chosen)[0]


def _forward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_weight: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    reverse: bool,
    mean: bool,
    needs_gradient: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    step = cpu.divergence_and_gradient
    if backend == "triton":
        from tinykernels.linear_kl_divergence import triton_kernels

        step = triton_kernels.divergence_and_gradient
    wide = torch.promote_types(hidden.dtype, torch.float32)
    tokens, vocabulary = hidden.shape[0], weight.shape[0]
    hidden, teacher_hidden, mask = hidden.contiguous(), teacher_hidden.contiguous(), mask.contiguous()
    losses = torch.empty(tokens, dtype=wide, device=hidden.device)
    grad_hidden = torch.empty_like(hidden) if needs_gradient else hidden.new_empty(0)
    grad_weight = torch.zeros(weight.shape if needs_gradient else 0, dtype=wide, device=weight.device)
    rows = chunks.rows_of_chunk(tokens, 2 * vocabulary, hidden.element_size(), hidden.device)
    buffers = torch.empty(2, rows, vocabulary, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, tokens, rows):
        part = slice(start, min(start + rows, tokens))
        size = part.stop - start
        logits = torch.mm(hidden[part], weight.T, out=buffers[0, :size])
        teacher_logits = torch.mm(teacher_hidden[part], teacher_weight.T, out=buffers[1, :size])
        step(logits, teacher_logits, mask[part], losses[part], temperature, reverse, needs_gradient)
        if needs_gradient:
            torch.mm(logits, weight, out=grad_hidden[part])
            chunks.accumulate(grad_weight, logits, hidden[part])
    count = mask.sum() if mean else torch.ones((), device=hidden.device)
    inverse_count = count.clamp(min=1).to(wide).reciprocal()
    return losses.sum() * inverse_count, grad_hidden, grad_weight, inverse_count


def _fake(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_weight: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    reverse: bool,
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
        return (None,) * 10
    return (*backward(grad_loss, *ctx.saved_tensors), *(None,) * 8)


_apply = differentiable(
    "linear_kl_divergence",
    schema="(Tensor hidden, Tensor weight, Tensor teacher_hidden, Tensor teacher_weight, Tensor mask,"
    " float temperature, bool reverse, bool mean, bool needs_gradient, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema=chunks.SCALED_SCHEMA,
    backward=chunks.scaled,
    backward_fake=chunks.scaled_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
