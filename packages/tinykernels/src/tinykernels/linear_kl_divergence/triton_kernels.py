"""The Triton path's inner step: one program a token, sweeps over both models' logits for the two
normalisers, the
divergence, and the gradient, which overwrites the student's logits."""

import torch
import triton
import triton.language as tl


@triton.jit
def load_scores(pointer, entry, factor, VOCABULARY: tl.constexpr):
    """Scores at inverse temperature `factor`, -inf past the vocabulary."""
    inside = entry < VOCABULARY
    return tl.where(inside, tl.load(pointer + entry, mask=inside, other=0.0).to(tl.float32) * factor, float("-inf"))


@triton.jit
def normaliser(pointer, factor, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr):
    """logsumexp of a row of scores."""
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        score = load_scores(pointer, start + tl.arange(0, BLOCK), factor, VOCABULARY)
        new_largest = tl.maximum(largest, score)
        reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        total = total * tl.exp(largest - reference) + tl.exp(score - reference)
        largest = new_largest
    top = tl.max(largest, axis=0)
    return top + tl.log(tl.sum(total * tl.exp(largest - top), axis=0))


@triton.jit
def divergence_and_gradient_kernel(
    logits_pointer,
    teacher_pointer,
    mask_pointer,
    losses_pointer,
    temperature,
    VOCABULARY: tl.constexpr,
    REVERSE: tl.constexpr,
    NEEDS_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_pointer += row * VOCABULARY
    teacher_pointer += row * VOCABULARY
    keep = tl.load(mask_pointer + row) != 0
    factor = 1.0 / temperature
    student_normaliser = normaliser(logits_pointer, factor, VOCABULARY, BLOCK)
    teacher_normaliser = normaliser(teacher_pointer, factor, VOCABULARY, BLOCK)

    divergences = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        inside = entry < VOCABULARY
        student = load_scores(logits_pointer, entry, factor, VOCABULARY) - student_normaliser
        teacher = load_scores(teacher_pointer, entry, factor, VOCABULARY) - teacher_normaliser
        if REVERSE:
            divergences += tl.where(inside, tl.exp(student) * (student - teacher), 0.0)
        else:
            divergences += tl.where(inside, tl.exp(teacher) * (teacher - student), 0.0)
    divergence = tl.sum(divergences, axis=0)
    tl.store(losses_pointer + row, tl.where(keep, divergence * temperature * temperature, 0.0))

    if NEEDS_GRADIENT:
        for start in range(0, VOCABULARY, BLOCK):
            entry = start + tl.arange(0, BLOCK)
            inside = entry < VOCABULARY
            student = load_scores(logits_pointer, entry, factor, VOCABULARY) - student_normaliser
            teacher = load_scores(teacher_pointer, entry, factor, VOCABULARY) - teacher_normaliser
            if REVERSE:
                gradient = tl.exp(student) * (student - teacher - divergence)
            else:
                gradient = tl.exp(student) - tl.exp(teacher)
            gradient = tl.where(keep, gradient * temperature, 0.0)
            tl.store(logits_pointer + entry, gradient.to(logits_pointer.dtype.element_ty), mask=inside)


def divergence_and_gradient(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    mask: torch.Tensor,
    losses: torch.Tensor,
    temperature: float,
    reverse: bool,
    needs_gradient: bool,
) -> None:
    """logits, teacher_logits (R, V), mask (R,) -> losses (R,), written; logits become the gradient of their sum."""
    rows, vocabulary = logits.shape
    block = min(2048, triton.next_power_of_2(vocabulary))
    divergence_and_gradient_kernel[(rows,)](
        logits,
        teacher_logits,
        mask,
        losses,
        temperature,
        VOCABULARY=vocabulary,
        REVERSE=reverse,
        NEEDS_GRADIENT=needs_gradient,
        BLOCK=block,
        num_warps=max(1, min(8, block // 256)),
    )
