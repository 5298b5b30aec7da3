"""Every loss equals loops over positions and tokens in float64, and behaves where its formula says how."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tinycore import losses

VOCABULARY = 7


def case(seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(2, 5, VOCABULARY, generator=draw, dtype=torch.float64) for _ in range(2))
    tokens, targets = (torch.randint(VOCABULARY, (2, 5), generator=draw) for _ in range(2))
    targets[0, 1] = targets[1, 4] = -100
    return student, teacher, tokens, targets


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    sizes = [math.exp(value - top) for value in row]
    return [size / sum(sizes) for size in sizes]


def places(targets: torch.Tensor) -> list[tuple[int, int]]:
    return [(row, t) for row in range(2) for t in range(5) if targets[row, t] != -100]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_divergences_are_their_loops(name: str, temperature: float) -> None:
    student, teacher, _, targets = case()
    expected = 0.0
    for row, t in places(targets):
        p, q = (softmax([v / temperature for v in logits[row, t].tolist()]) for logits in (teacher, student))
        m = [0.5 * a + 0.5 * b for a, b in zip(p, q, strict=True)]
        for a, b, middle in zip(p, q, m, strict=True):
            if name == "forward_kl":
                expected += a * math.log(a / b)
            elif name == "reverse_kl":
                expected += b * math.log(b / a)
            else:
                expected += 0.5 * a * math.log(a / middle) + 0.5 * b * math.log(b / middle)
    total, count = getattr(losses, name)(student, teacher, targets, temperature)
    assert count == 8
    assert total.item() == pytest.approx(temperature**2 * expected, rel=1e-12)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_divergences_of_equals_are_zero_and_teachers_learn_nothing(name: str) -> None:
    student, teacher, _, targets = case()
    divergence = getattr(losses, name)
    assert divergence(student, student, targets)[0].item() == pytest.approx(0.0, abs=1e-12)
    student.requires_grad_()
    teacher.requires_grad_()
    divergence(student, teacher, targets)[0].backward()
    assert teacher.grad is None
    assert student.grad[0, 1].abs().max() == 0, "a position without a target"
    torch.autograd.gradcheck(lambda x: divergence(x, teacher, targets, 1.7)[0], student)


def test_padding_changes_nothing() -> None:
    student, teacher, _, targets = case()
    total, count = losses.forward_kl(student, teacher, targets)
    wide = [F.pad(logits, (0, 0, 0, 3)) for logits in (student, teacher)]
    padded, padded_count = losses.forward_kl(*wide, F.pad(targets, (0, 3), value=-100))
    assert torch.equal(count, padded_count)
    assert padded.item() == pytest.approx(total.item(), rel=1e-12)


def test_a_teachers_top_tokens_and_the_rest_as_one() -> None:
    student, teacher, _, targets = case()
    whole = teacher.log_softmax(-1)
    for k in (1, 3, VOCABULARY):
        kept, ids = whole.topk(k)
        total, _ = losses.forward_kl_top(student, kept, ids, targets)
        expected = 0.0
        for row, t in places(targets):
            p, q = (softmax(logits[row, t].tolist()) for logits in (teacher, student))
            chosen = ids[row, t].tolist()
            rest = [sum(part[v] for v in range(VOCABULARY) if v not in chosen) for part in (p, q)]
            expected += sum(p[v] * math.log(p[v] / q[v]) for v in chosen)
            expected += rest[0] * math.log(rest[0] / rest[1]) if k < VOCABULARY else 0.0
        assert total.item() == pytest.approx(expected, rel=1e-9)
    assert total.item() == pytest.approx(losses.forward_kl(student, teacher, targets)[0].item(), rel=1e-9)


def test_smoothing_is_its_loop_and_without_it_cross_entropy() -> None:
    logits, _, _, targets = case()
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-100, label_smoothing=smoothing
        )
        total, count = losses.smoothed_cross_entropy(logits, targets, smoothing)
        assert total.item() == pytest.approx(expected.item(), rel=1e-12)
        assert count == 8


@pytest.mark.parametrize("packed", [False, True])
def test_unlikelihood_is_its_loop(packed: bool) -> None:
    logits, _, tokens, targets = case(3)
    doc_ids = torch.tensor([[0, 0, 1, 1, 1], [4, 4, 4, 4, 9]]) if packed else None
    expected = 0.0
    for row, t in places(targets):
        context = {int(tokens[row, s]) for s in range(t + 1) if doc_ids is None or doc_ids[row, s] == doc_ids[row, t]}
        p = softmax(logits[row, t].tolist())
        expected -= sum(math.log(1 - p[c]) for c in context - {int(targets[row, t])})
    total, count = losses.unlikelihood(logits, tokens, targets, doc_ids)
    assert count == 8
    assert total.item() == pytest.approx(expected, rel=1e-12)


def test_unlikelihood_leaves_the_target_alone_and_stays_finite() -> None:
    tokens = torch.full((1, 4), 3)
    assert losses.unlikelihood(torch.randn(1, 4, VOCABULARY), tokens, tokens)[0] == 0
    certain = torch.full((1, 4, VOCABULARY), -1e4)
    certain[..., 3] = 1e4
    certain.requires_grad_()
    total, _ = losses.unlikelihood(certain, tokens, torch.zeros(1, 4, dtype=torch.long))
    total.backward()
    assert total.isfinite()
    assert certain.grad.isfinite().all()


def test_entropy_is_its_loop() -> None:
    logits, _, _, targets = case()
    expected = -sum(p * math.log(p) for place in places(targets) for p in softmax(logits[place].tolist()))
    assert losses.entropy(logits, targets)[0].item() == pytest.approx(expected, rel=1e-12)
    even = torch.zeros(2, 5, VOCABULARY)
    total, count = losses.entropy(even, targets)
    assert (total / count).item() == pytest.approx(math.log(VOCABULARY))


def test_what_is_refused() -> None:
    student, teacher, _, targets = case()
    with pytest.raises(ValueError, match="temperature: 0"):
        losses.forward_kl(student, teacher, targets, 0.0)
    with pytest.raises(ValueError, match="expected \\(B, T, V\\) of both"):
        losses.reverse_kl(student, teacher[:, :3], targets)
    with pytest.raises(ValueError, match="beta: 1"):
        losses.jensen_shannon(student, teacher, targets, beta=1.0)
    with pytest.raises(ValueError, match="smoothing: 1"):
        losses.smoothed_cross_entropy(student, targets, 1.0)
    with pytest.raises(ValueError, match="top_ids"):
        losses.forward_kl_top(student, teacher[..., :2], torch.zeros(2, 5, 3, dtype=torch.long), targets)
