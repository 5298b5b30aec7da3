"""The Triton path's inner step: one program a token, two sweeps over its logits, which become their own
gradient.

The first sweep keeps a running maximum and sum in float32. The target's own entry p - 1 is formed in
float32 before it is rounded, since it cancels when the model is sure. A target outside the vocabulary makes
the loss NaN: on a GPU it cannot be checked without waiting for the device.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def capped(logits, softcap, HAS_SOFTCAP: tl.constexpr):
    """softcap * tanh(logits / softcap), and the derivative."""
    if HAS_SOFTCAP:
        tangent = 1.0 - 2.0 / (tl.exp(2.0 * logits / softcap) + 1.0)
        return softcap * tangent, 1.0 - tangent * tangent
    return logits, logits


@triton.jit(do_not_specialize=["ignore_index"])
def loss_and_gradient_kernel(
    logits_pointer,
    targets_pointer,
    losses_pointer,
    ignore_index,
    softcap,
    z_loss,
    VOCABULARY: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    NEEDS_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_pointer += row * VOCABULARY
    target = tl.load(targets_pointer + row)
    keep = target != ignore_index

    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    target_score = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        inside = entry < VOCABULARY
        logits = tl.load(logits_pointer + entry, mask=inside, other=0.0).to(tl.float32)
        score, _ = capped(logits, softcap, HAS_SOFTCAP)
        target_score += tl.where(entry == target, score, 0.0)
        score = tl.where(inside, score, float("-inf"))
        new_largest = tl.maximum(largest, score)
        reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        total = total * tl.exp(largest - reference) + tl.exp(score - reference)
        largest = new_largest
    top = tl.max(largest, axis=0)
    normaliser = top + tl.log(tl.sum(total * tl.exp(largest - top), axis=0))
    loss = normaliser - tl.sum(target_score, axis=0) + z_loss * normaliser * normaliser
    loss = tl.where((target >= 0) & (target < VOCABULARY), loss, float("nan"))
    tl.store(losses_pointer + row, tl.where(keep, loss, 0.0))

    if NEEDS_GRADIENT:
        factor = 1.0 + 2.0 * z_loss * normaliser
        for start in range(0, VOCABULARY, BLOCK):
            entry = start + tl.arange(0, BLOCK)
            inside = entry < VOCABULARY
            logits = tl.load(logits_pointer + entry, mask=inside, other=0.0).to(tl.float32)
            score, slope = capped(logits, softcap, HAS_SOFTCAP)
            gradient = tl.exp(score - normaliser) * factor
            gradient = tl.where(entry == target, gradient - 1.0, gradient)
            if HAS_SOFTCAP:
                gradient *= slope
            gradient = tl.where(keep, gradient, 0.0)
            tl.store(logits_pointer + entry, gradient.to(logits_pointer.dtype.element_ty), mask=inside)


def loss_and_gradient(
    logits: torch.Tensor,
    targets: torch.Tensor,
    losses: torch.Tensor,
    ignore_index: int,
    softcap: float | None,
    z_loss: float,
    needs_gradient: bool,
) -> None:
    """logits (R, V), targets (R,) -> losses (R,), written; logits become the gradient of their summed loss."""
    rows, vocabulary = logits.shape
    block = min(4096, triton.next_power_of_2(vocabulary))
    loss_and_gradient_kernel[(rows,)](
        logits,
        targets,
        losses,
        ignore_index,
        1.0 if softcap is None else softcap,
        z_loss,
        VOCABULARY=vocabulary,
        HAS_SOFTCAP=softcap is not None,
        NEEDS_GRADIENT=needs_gradient,
        BLOCK=block,
        num_warps=max(1, min(8, block // 512)),
    )
