"""Operations whose backward pass is written out: forward and gradients equal the formula under autograd, in float64; what
they keep for the backward pass is what they say.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinycore.context import Context
from tinycore.mixers.rotary import rotary_tables, rotate
from tinycore.ops.rms_norm import rms_norm
from tinycore.ops.swiglu import swiglu, swiglu_linear

EPS = 1e-5


def normed(x: Tensor, weight: Tensor | None) -> Tensor:
    y = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    return y if weight is None else y * weight


def turned(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def tables(length: int, width: int) -> tuple[Tensor, Tensor]:
    return rotary_tables(Context(torch.arange(length)[None]), width, 100.0, torch.float64)


def angles(length: int, width: int) -> Tensor:
    return torch.arange(length)[:, None] * 100.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "rms_norm": (lambda x, w: rms_norm(x, w, EPS), normed, [(2, 5, 7), (7,)]),
    "rms_norm without a gain": (lambda x: rms_norm(x, None, EPS), lambda x: normed(x, None), [(3, 4, 6)]),
    "swiglu": (swiglu, lambda g, u: F.silu(g) * u, [(2, 5, 7), (2, 5, 7)]),
    "swiglu_linear": (
        swiglu_linear,
        lambda g, u, w: (F.silu(g) * u) @ w.t(),
        [(2, 5, 7), (2, 5, 7), (4, 7)],
    ),
    "rotate": (lambda x: rotate(x, tables(5, 6)), lambda x: turned(x, angles(5, 6)), [(2, 3, 5, 6)]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equals_the_formula(name: str) -> None:
    ours, formula, shapes = PAIRS[name]
    draw = torch.Generator().manual_seed(1)
    leaves = [torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes]
    found, expected = ours(*leaves), formula(*leaves)
    upstream = torch.randn(found.shape, generator=draw, dtype=torch.float64)
    assert (found - expected).abs().max() < 1e-12
    gradients = zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    )
    assert all((a - b).abs().max() < 1e-12 for a, b in gradients)


def kept(call: Callable[[], Tensor]) -> int:
    """Elements that autograd keeps, each storage once."""
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(tensor.numel() for tensor in found.values())


def test_rms_norm_keeps_its_input_and_a_number_a_row() -> None:
    x, weight = torch.randn(6, 32, requires_grad=True), torch.ones(32, requires_grad=True)
    assert kept(lambda: rms_norm(x, weight, EPS)) == 6 * 32 + 32 + 6


def test_swiglu_keeps_its_two_inputs() -> None:
    gate, up = (torch.randn(6, 32, requires_grad=True) for _ in range(2))
    assert kept(lambda: swiglu(gate, up)) == 2 * 6 * 32


def test_swiglu_linear_keeps_them_and_the_matrix() -> None:
    gate, up, weight = (torch.randn(shape, requires_grad=True) for shape in ((6, 32), (6, 32), (5, 32)))
    assert kept(lambda: swiglu_linear(gate, up, weight)) == 2 * 6 * 32 + 5 * 32


def test_rotate_keeps_its_tables() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert kept(lambda: rotate(x, tables(5, 6))) == 2 * 5 * 3


def test_a_norm_can_be_asked_for_the_precision_of_the_products_that_follow() -> None:
    x = torch.randn(4, 16, requires_grad=True)
    y = rms_norm(x, None, EPS, torch.bfloat16)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
