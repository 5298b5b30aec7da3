"""Benchmark cases of causal_conv1d against torch's depthwise convolution."""

import torch
import torch.nn.functional as F

from tinykernels.bench.case import Case, gradient_error, relative_error, training_step
from tinykernels.causal_conv1d.operation import causal_conv1d


def cases(device: str) -> list[Case]:
    """4 taps and silu, forward, and forward + backward: 32 x 1024 x 1024 bfloat16 on a GPU, 4 x 512 x 512 float32
    on a CPU."""
    gpu = device == "cuda"
    shape, dtype = ((32, 1024, 1024), torch.bfloat16) if gpu else ((4, 512, 512), torch.float32)
    x = torch.randn(shape, device=device).to(dtype).requires_grad_()
    weight = torch.randn(shape[2], 4, device=device, dtype=dtype, requires_grad=True)
    upstream = torch.randn(shape, device=device).to(dtype)
    exact = tuple(t.detach().double().requires_grad_() for t in (x, weight))

    def ours(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return causal_conv1d(x, weight, activation="silu")[0]

    def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x.transpose(1, 2), (3, 0))
        return F.silu(F.conv1d(padded, weight[:, None], groups=weight.shape[0])).transpose(1, 2)

    step = training_step(ours, (x, weight), upstream)
    bound, traffic = (2e-2 if gpu else 1e-5), x.numel() * x.element_size()
    size = "x".join(str(n) for n in shape)
    return [
        Case(
            operation="causal_conv1d",
            label=f"{size} forward",
            ours=lambda: ours(x.detach(), weight.detach()),
            error=lambda: relative_error(ours(x, weight), reference(*exact)),
            bound=bound,
            rivals={"F.conv1d": lambda: reference(x.detach(), weight.detach())},
            bytes=2.0 * traffic,
        ),
        Case(
            operation="causal_conv1d",
            label=f"{size} forward + backward",
            ours=step,
            error=gradient_error(step, training_step(reference, exact, upstream.double())),
            bound=bound,
            rivals={"F.conv1d": training_step(reference, (x, weight), upstream)},
            bytes=5.0 * traffic,
        ),
    ]
