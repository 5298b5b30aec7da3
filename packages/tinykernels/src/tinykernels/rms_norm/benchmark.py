"""Benchmark cases of rms_norm against PyTorch's own."""

import torch
import torch.nn.functional as F

from tinykernels.bench import rivals
from tinykernels.bench.case import Case, gradient_error, relative_error, training_step
from tinykernels.rms_norm.operation import rms_norm


def cases(device: str) -> list[Case]:
    """Forward, and forward + backward, at 32768 x 512 bfloat16 on a GPU, 2048 x 512 float32 on a CPU."""
    rows, dtype = (32768, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    x = torch.randn(rows, 512, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(512, device=device, dtype=dtype, requires_grad=True)
    upstream = torch.randn_like(x)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]

    def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (512,), weight, 1e-5)

    others: rivals.Rivals = {"F.rms_norm": reference}
    if device == "cuda":
        others |= {"torch.compile": torch.compile(reference)} | rivals.liger_rms_norm()
    step = training_step(rms_norm, (x, weight), upstream)
    bound, traffic = 1e-5 if dtype == torch.float32 else 2e-2, x.numel() * x.element_size()
    return [
        Case(
            operation="rms_norm",
            label=f"{rows}x512 forward",
            ours=lambda: rms_norm(x.detach(), weight.detach()),
            error=lambda: relative_error(rms_norm(x, weight), reference(*exact)),
            bound=bound,
            rivals={name: lambda call=call: call(x.detach(), weight.detach()) for name, call in others.items()},
            bytes=2.0 * traffic,
            share=0.8 if device == "cuda" else None,
        ),
        Case(
            operation="rms_norm",
            label=f"{rows}x512 forward + backward",
            ours=step,
            error=gradient_error(step, training_step(reference, tuple(exact), upstream.double())),
            bound=bound,
            rivals={name: training_step(call, (x, weight), upstream) for name, call in others.items()},
            bytes=5.0 * traffic,
        ),
    ]
