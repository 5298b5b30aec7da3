"""The selective scan and its convolution equal loops over tokens, in float64, with all gradients: for packed and padded rows,
for states that go on, and by way of the kernels' package as by the path of tinycore's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tinycore.ops import causal_conv1d as module
from tinycore.ops import selective_scan_chunks
from tinycore.ops.causal_conv1d import causal_conv1d, newest_inputs, taps
from tinycore.ops.documents import document_after, document_starts
from tinycore.ops.selective_scan import Marks, by_kernel, selective_scan

CHANNELS, STATES, WIDTH = 6, 3, 4
NAMES = ("x", "delta", "A", "B", "C", "D", "z", "bias", "initial")


def loop(inputs: dict[str, Tensor], documents: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    """Row by row, token by token: the formula of the paper; padding is left out."""
    outputs, finals = [], []
    for row, ids in enumerate(documents.tolist()):
        state, document = inputs["initial"][row], int(current[row])
        for t, own in enumerate(ids):
            x = inputs["x"][row, t]
            if own == -1:
                outputs.append(torch.zeros_like(x))
                continue
            if own != document:
                state, document = torch.zeros_like(state), own
            step = torch.log1p(torch.exp(inputs["delta"][row, t] + inputs["bias"]))
            state = torch.exp(step[:, None] * inputs["A"]) * state + (step * x)[:, None] * inputs["B"][row, t]
            gate = inputs["z"][row, t]
            outputs.append((state @ inputs["C"][row, t] + inputs["D"] * x) * gate * torch.sigmoid(gate))
        finals.append(state)
    return torch.stack(outputs).view_as(inputs["x"]), torch.stack(finals)


def leaves(rows: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "x": (rows, length, CHANNELS),
        "delta": (rows, length, CHANNELS),
        "A": (CHANNELS, STATES),
        "B": (rows, length, STATES),
        "C": (rows, length, STATES),
        "D": (CHANNELS,),
        "z": (rows, length, CHANNELS),
        "bias": (CHANNELS,),
        "initial": (rows, CHANNELS, STATES),
    }
    made = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    made["A"] = -made["A"].exp()
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def layout(rows: int, length: int, kind: str) -> Tensor | None:
    if kind == "single":
        return None
    draw = torch.Generator().manual_seed(length)
    documents = (torch.rand(rows, length, generator=draw) < 0.2).long().cumsum(1)
    return torch.where(torch.rand(rows, length, generator=draw) < 0.3, -1, documents)


def marks_of(documents: Tensor | None, current: Tensor) -> Marks | None:
    return None if documents is None else Marks(document_starts(documents, current), documents != -1)


def agree(found: Sequence[Tensor], expected: Sequence[Tensor], valid: Tensor, inputs: dict[str, Tensor]) -> None:
    """Outputs where they are valid, states, and the gradients of everything from both."""
    pairs = [(found[0] * valid[..., None], expected[0] * valid[..., None]), (found[1], expected[1])]
    draw = torch.Generator().manual_seed(9)
    gradients = []
    weights = [torch.randn(result.shape, generator=draw, dtype=torch.float64) for _, result in pairs]
    for side in (0, 1):
        total = sum((pair[side] * weight).sum() for pair, weight in zip(pairs, weights, strict=True))
        gradients.append(torch.autograd.grad(total, list(inputs.values()), allow_unused=True))
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() < 1e-11
    for name, ours, theirs in zip(inputs, *gradients, strict=True):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        assert (ours - theirs).abs().max() < 1e-10, name


@pytest.mark.parametrize("kind", ["single", "packed"])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 150])
def test_scan_equals_the_loop(length: int, kind: str) -> None:
    rows, inputs = 3, leaves(3, length)
    current = torch.tensor([0, 1, 5])
    documents = layout(rows, length, kind)
    found = selective_scan(**{**inputs, "marks": marks_of(documents, current)})
    ids = current[:, None].expand(rows, length) if documents is None else documents
    agree(found, loop(inputs, ids, current), ids != -1, inputs)


def test_rows_are_taken_in_groups_and_chunks_get_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selective_scan_chunks, "ELEMENTS", 2 * 16 * CHANNELS * STATES)
    assert selective_scan_chunks.length_of(5, CHANNELS, STATES) == 16
    inputs, documents, current = leaves(5, 40), layout(5, 40, "packed"), torch.zeros(5, dtype=torch.long)
    assert documents is not None
    found = selective_scan(**{**inputs, "marks": marks_of(documents, current)})
    agree(found, loop(inputs, documents, current), documents != -1, inputs)


@pytest.mark.parametrize("kind", ["single", "packed"])
def test_kernels_are_given_the_same_problem(kind: str) -> None:
    """Their CPU path stands in for the kernel; both have the same arguments."""
    tinykernels = pytest.importorskip("tinykernels")
    inputs, documents, current = leaves(3, 30), layout(3, 30, kind), torch.tensor([0, 1, 5])
    arguments = [inputs[name] for name in NAMES[:-1]]
    found = by_kernel(
        tinykernels.selective_scan, *arguments, marks=marks_of(documents, current), initial=inputs["initial"]
    )
    ids = current[:, None].expand(3, 30) if documents is None else documents
    agree(found, loop(inputs, ids, current), ids != -1, inputs)


def test_scan_without_a_state_or_a_gradient() -> None:
    inputs = leaves(2, 20)
    zero = {**inputs, "initial": torch.zeros_like(inputs["initial"])}
    fresh = {**inputs, "initial": None}
    with torch.no_grad():
        for ours, theirs in zip(selective_scan(**fresh), selective_scan(**zero), strict=True):
            assert torch.equal(ours, theirs)
    _, final = selective_scan(**fresh)
    (gradient,) = torch.autograd.grad(final.sum(), inputs["z"])
    assert torch.equal(gradient, torch.zeros_like(gradient))
    with pytest.raises(ValueError, match="at least one token"):
        selective_scan(**{**inputs, "x": inputs["x"][:, :0]})


def test_float32_and_bfloat16_scans_are_wide_inside() -> None:
    """Long memory: the states are 500 times their inputs, which bfloat16 states would not survive."""
    inputs = {name: tensor.detach().float() for name, tensor in leaves(2, 600).items()}
    inputs |= {"A": -torch.full((CHANNELS, STATES), 1e-3), "x": inputs["x"].abs(), "B": inputs["B"].abs()}
    low = {name: inputs[name].bfloat16() for name in ("x", "B", "C", "z")}
    with torch.autocast("cpu", torch.bfloat16):
        y, final = selective_scan(**{**inputs, **low})
    wide = {name: tensor.double() for name, tensor in {**inputs, **low}.items()}
    expected, state = loop(wide, torch.zeros(2, 600, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    assert (y.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert ((final - state).abs() / state.abs()).max() < 1e-4
    assert (y - expected).abs().max() < 0.005 * expected.abs().max()


def test_compiled_scan_and_convolution() -> None:
    inputs = {name: tensor.detach().float().requires_grad_() for name, tensor in leaves(2, 33).items()}
    documents = layout(2, 33, "packed")
    assert documents is not None
    weight = torch.randn(CHANNELS, WIDTH, requires_grad=True)

    def run(inputs: dict[str, Tensor], weight: Tensor, documents: Tensor) -> Tensor:
        marks = Marks(document_starts(documents, None), documents != -1)
        x = causal_conv1d(inputs["x"], weight, inputs["D"], None, taps(documents, None, WIDTH))
        y, final = selective_scan(**{**inputs, "x": x, "marks": marks})
        return (y * marks.valid[..., None]).square().sum() + final.sum()

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    wanted = [*inputs.values(), weight]
    expected = torch.autograd.grad(run(inputs, weight, documents), wanted)
    found = torch.autograd.grad(compiled(inputs, weight, documents), wanted)
    torch.compiler.reset()
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-6


def convolved(x: Tensor, weight: Tensor, bias: Tensor, previous: Tensor, documents: Tensor, current: Tensor) -> Tensor:
    """Token by token, from lists of each document's inputs so far."""
    outputs = []
    for row, ids in enumerate(documents.tolist()):
        seen, document = list(previous[row]), int(current[row])
        for t, own in enumerate(ids):
            if own == -1:
                outputs.append(torch.zeros_like(x[row, t]))
                continue
            if own != document:
                seen, document = [torch.zeros_like(x[row, t])] * (WIDTH - 1), own
            seen.append(x[row, t])
            total = bias + sum(seen[-1 - j] * weight[:, -1 - j] for j in range(WIDTH))
            outputs.append(total * torch.sigmoid(total))
    return torch.stack(outputs).view_as(x)


@pytest.mark.parametrize("kind", ["single", "packed"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 40])
def test_convolution_equals_the_loop(length: int, kind: str) -> None:
    draw = torch.Generator().manual_seed(length)
    shapes = [(3, length, CHANNELS), (CHANNELS, WIDTH), (CHANNELS,), (3, WIDTH - 1, CHANNELS)]
    x, weight, bias, previous = (
        torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    current, documents = torch.tensor([0, 1, 5]), layout(3, length, kind)
    where = None if documents is None else taps(documents, current, WIDTH)
    ids = current[:, None].expand(3, length) if documents is None else documents
    found = causal_conv1d(x, weight, bias, previous, where) * (ids != -1)[..., None]
    expected = convolved(x, weight, bias, previous, ids, current)
    assert (found - expected).abs().max() < 1e-12
    upstream = torch.randn(found.shape, generator=draw, dtype=torch.float64)
    inputs = [x, weight, bias, previous]
    gradients = [torch.autograd.grad((y * upstream).sum(), inputs) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() < 1e-11


@pytest.mark.parametrize("kind", ["single", "packed"])
def test_convolution_in_blocks_of_rows_and_channels_is_that_of_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = [(3, 20, 70), (70, WIDTH), (70,), (3, WIDTH - 1, 70)]
    inputs = [torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes]
    documents = layout(3, 20, kind)
    where = None if documents is None else taps(documents, torch.tensor([0, 1, 5]), WIDTH)
    upstream = torch.randn(3, 20, 70, generator=draw, dtype=torch.float64)
    results = []
    for block, number in ((10**9, 1), (2 * 20 * 70, 2), (1, 6)):  # all; two rows; a row of 64 channels
        monkeypatch.setattr(module, "BLOCK", block)
        assert len(module._blocks(inputs[0])) == number
        y = causal_conv1d(*inputs, where)
        results.append([y, *torch.autograd.grad((y * upstream).sum(), inputs)])
    for blocks in results[1:]:
        for ours, theirs in zip(blocks, results[0], strict=True):
            assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["single", "packed"])
def test_convolution_goes_on_from_the_newest_inputs(kind: str) -> None:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(3, 40, CHANNELS, generator=draw, dtype=torch.float64)
    weight, bias = torch.randn(CHANNELS, WIDTH, generator=draw).double(), torch.randn(CHANNELS, generator=draw).double()
    documents = layout(3, 40, kind)
    whole = causal_conv1d(x, weight, bias, None, None if documents is None else taps(documents, None, WIDTH))
    pieces, previous, current = [], None, None
    for begin, end in ((0, 1), (1, 2), (2, 9), (9, 11), (11, 40)):
        ids = None if documents is None else documents[:, begin:end]
        where = None if ids is None else taps(ids, current, WIDTH)
        piece = x[:, begin:end]
        pieces.append(causal_conv1d(piece, weight, bias, previous, where))
        previous = newest_inputs(piece, WIDTH, previous, where)
        current = None if ids is None else document_after(ids, current)
    valid = torch.ones(3, 40, dtype=torch.bool) if documents is None else documents != -1
    assert (torch.cat(pieces, 1) - whole)[valid].abs().max() < 1e-12
