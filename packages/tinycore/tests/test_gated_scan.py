"""The gated scan equals a loop over tokens, in float64, with all gradients; documents and padding are said by the gates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinycore.ops.documents import document_after, document_starts
from tinycore.ops.gated_scan import CHUNK, gated_scan


def loop(forget: Tensor, value: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    state = torch.zeros_like(value[:, 0]) if initial is None else initial
    steps = []
    for t in range(forget.shape[1]):
        state = forget[:, t] * state + value[:, t]
        steps.append(state)
    return torch.stack(steps, 1), state


def leaves(rows: int, length: int, channels: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(length)
    forget = torch.rand(rows, length, channels, generator=draw, dtype=dtype)
    forget = torch.where(forget < 0.1, 0, forget)  # gates of 0 occur: documents begin there
    value = torch.randn(rows, length, channels, generator=draw, dtype=dtype)
    initial = torch.randn(rows, channels, generator=draw, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (forget, value, initial)]


@pytest.mark.parametrize("with_initial", [True, False])
@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3])
@pytest.mark.parametrize("read", ["hidden", "final", "both"])
def test_equals_the_loop(length: int, with_initial: bool, read: str) -> None:
    inputs = leaves(3, length, 5)
    initial = inputs[2] if with_initial else None
    found, expected = gated_scan(inputs[0], inputs[1], initial), loop(inputs[0], inputs[1], initial)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-12
    chosen = {"hidden": [0], "final": [1], "both": [0, 1]}[read]
    weights = [torch.randn(tensor.shape, dtype=torch.float64) for tensor in expected]
    wanted = inputs[: 2 + with_initial]
    gradients = [
        torch.autograd.grad(sum((result[i] * weights[i]).sum() for i in chosen), wanted, allow_unused=True)
        for result in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        assert (ours - theirs).abs().max() < 1e-11


def test_chunks_of_a_stream_equal_the_whole() -> None:
    forget, value, initial = leaves(2, 70, 4)
    whole, final = gated_scan(forget, value, initial)
    pieces, state = [], initial
    for begin, end in ((0, 1), (1, 30), (30, 47), (47, 70)):
        hidden, state = gated_scan(forget[:, begin:end], value[:, begin:end], state)
        pieces.append(hidden)
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-12
    assert (state - final).abs().max() < 1e-12


def test_low_precision_is_only_that_of_inputs_and_outputs() -> None:
    exact = leaves(2, 200, 8)
    low = [tensor.detach().to(torch.bfloat16) for tensor in exact]
    hidden, final = gated_scan(*low)
    expected, _ = loop(*(tensor.double() for tensor in low))
    assert hidden.dtype == torch.bfloat16
    assert final.dtype == torch.float32
    assert ((hidden.double() - expected).abs() <= 0.004 * expected.abs() + 1e-6).all()
    assert (final - expected[:, -1]).abs().max() < 1e-5


def test_compiled() -> None:
    inputs = leaves(2, 37, 4, torch.float32)

    def run(forget: Tensor, value: Tensor, initial: Tensor) -> Tensor:
        hidden, final = gated_scan(forget, value, initial)
        return hidden.square().sum() + final.sum()

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(run(*inputs), inputs)
    found = torch.autograd.grad(compiled(*inputs), inputs)
    torch.compiler.reset()
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-5


def test_bad_arguments_are_named() -> None:
    forget, value, initial = leaves(2, 5, 4)
    with pytest.raises(ValueError, match="forget and value must be"):
        gated_scan(forget, value[:, :3])
    with pytest.raises(ValueError, match="initial must be"):
        gated_scan(forget, value, initial[:, :3])
    with pytest.raises(ValueError, match="at least one token"):
        gated_scan(forget[:, :0], value[:, :0])


def test_documents_begin_where_the_id_changes_but_for_padding() -> None:
    documents = torch.tensor([[7, -1, 7, 3, -1, -1], [-1, 4, 4, -1, 4, 0], [-1, -1, -1, -1, -1, -1]])
    starts = document_starts(documents, None)
    assert starts.int().tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0] * 6]
    state = torch.tensor([7, 0, 5])
    starts = document_starts(documents, state)
    assert starts.int().tolist() == [[0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0] * 6]
    assert document_after(documents, state).tolist() == [3, 0, 5]
    assert document_after(documents, None).tolist() == [3, 0, -1]
