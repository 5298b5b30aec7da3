"""Claim: on a GPU the forward and backward of an operation can be captured in a CUDA graph and replayed on
new inputs, so nothing in it waits for the device.

uv run pytest packages/tinykernels/tests/test_graph_capture.py -m gpu
"""

from collections.abc import Callable

import pytest
import torch

import tinykernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SHAPES = {
    "attention": [(1, 32, 2, 16), (1, 32, 1, 16), (1, 32, 1, 16)],
    "rms_norm": [(32, 24), (24,)],
    "rotary_qk_norm": [(1, 32, 2, 16), (1, 32, 1, 16)],
    "linear_cross_entropy": [(32, 16), (50, 16)],
    "linear_kl_divergence": [(32, 16), (50, 16)],
}


def function_of(operation: str) -> Callable[..., torch.Tensor]:
    """The operation as a function of its differentiable tensors to one tensor, its other arguments on the device."""
    boundaries = torch.tensor([0, 11, 11, 32], dtype=torch.int32, device="cuda")
    targets = torch.arange(32, device="cuda") % 50
    angle = torch.rand(32, 8, device="cuda")
    cos, sin = angle.cos(), angle.sin()
    teacher = torch.randn(32, 8, device="cuda"), torch.randn(50, 8, device="cuda")
    functions: dict[str, Callable[..., torch.Tensor]] = {
        "attention": lambda q, k, v: tinykernels.attention(q, k, v, cu_seqlens=boundaries, window=9),
        "rms_norm": tinykernels.rms_norm,
        "rotary_qk_norm": lambda q, k: torch.cat(tinykernels.rotary_qk_norm(q, k, cos, sin), 2),
        "linear_cross_entropy": lambda h, w: tinykernels.linear_cross_entropy(h, w, targets, z_loss=1e-3),
        "linear_kl_divergence": lambda h, w: tinykernels.linear_kl_divergence(h, w, *teacher),
    }
    return functions[operation]


@pytest.mark.parametrize("operation", sorted(SHAPES))
def test_capture_and_replay(operation) -> None:
    function = function_of(operation)
    inputs = [torch.randn(shape, device="cuda", requires_grad=True) for shape in SHAPES[operation]]

    def step() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(function(*inputs).square().sum(), inputs)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for tensor in inputs:
            tensor.normal_()
    graph.replay()
    for actual, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(actual, expected)
