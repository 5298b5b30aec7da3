"""tinycore's ternary linear and tinykernels' are one definition: the same bits forward and packed, the same gradients."""

from __future__ import annotations

import pytest
import torch

import tinykernels
from tinycore.linears.bit import Bit, sub_norm
from tinycore.linears.packed_bit import packed
from tinycore.ops.bit_linear import bit_linear


def layer(inputs: int, outputs: int, bias: bool) -> tuple[Bit, torch.Tensor]:
    torch.manual_seed(inputs)
    module = Bit.Config(bias=bias).build(inputs, outputs)
    if module.bias is not None:
        torch.nn.init.normal_(module.bias)
    return module, torch.randn(3, 5, inputs) * torch.tensor([0.01, 1.0, 40.0])[:, None, None]


SIZES = pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (37, 20), (512, 130), (6, 3)])
BIAS = pytest.mark.parametrize("bias", [False, True])


@SIZES
@BIAS
def test_the_same_bits_and_gradients(inputs: int, outputs: int, bias: bool) -> None:
    """Given the same normalised rows; the two norms differ in the last bit, which may move a code by one."""
    module, x = layer(inputs, outputs, bias)
    normed = sub_norm(x, module.config)
    upstream = torch.randn(3, 5, outputs)
    rows = [normed.clone().requires_grad_() for _ in range(2)]
    theirs = tinykernels.bitlinear(rows[1], module.weight, module.bias)
    expected = torch.autograd.grad(theirs, [rows[1], *module.parameters()], upstream)
    ours = bit_linear(rows[0], module.weight)
    ours = ours if module.bias is None else ours + module.bias
    found = torch.autograd.grad(ours, [rows[0], *module.parameters()], upstream)
    assert torch.equal(ours, theirs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@SIZES
@BIAS
@torch.no_grad()
def test_packed_weights_of_one_package_are_those_of_the_other(inputs: int, outputs: int, bias: bool) -> None:
    module, x = layer(inputs, outputs, bias)
    ours, theirs = packed(module), tinykernels.pack(module.weight)
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.equal(ours.scale, theirs.scale)
    assert torch.equal(ours(x), tinykernels.bitlinear_packed(sub_norm(x, module.config), theirs, module.bias))
