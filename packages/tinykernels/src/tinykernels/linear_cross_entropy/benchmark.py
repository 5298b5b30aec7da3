"""Benchmark cases of linear_cross_entropy against the head and loss in the open."""

import torch
import torch.nn.functional as F

from tinykernels.bench import rivals
from tinykernels.bench.case import Case, gradient_error, training_step
from tinykernels.linear_cross_entropy.operation import linear_cross_entropy


def cases(device: str) -> list[Case]:
    """Forward + backward at 32768 x 512 -> 8192 bfloat16 on a GPU, 1024 x 256 -> 8192 float32 on a CPU."""
    tokens, width, vocabulary = (32768, 512, 8192) if device == "cuda" else (1024, 256, 8192)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    hidden = torch.randn(tokens, width, device=device, dtype=dtype, requires_grad=True)
    weight = (torch.randn(vocabulary, width, device=device) / width**0.5).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), device=device)
    one = torch.ones((), device=device)

    def ours(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(hidden, weight, targets)

    def reference(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(hidden, weight).float(), targets)

    others: rivals.Rivals = {"F.linear + F.cross_entropy": reference}
    if device == "cuda":
        others |= {"torch.compile": torch.compile(reference)} | rivals.liger_linear_cross_entropy(targets)
    step = training_step(ours, (hidden, weight), one)
    exact = tuple(t.detach().float().requires_grad_() for t in (hidden, weight))
    return [
        Case(
            operation="linear_cross_entropy",
            label=f"{tokens}x{width} -> {vocabulary} forward + backward",
            ours=step,
            error=gradient_error(step, training_step(reference, exact, one)),
            bound=1e-5 if dtype == torch.float32 else 3e-2,
            rivals={name: training_step(call, (hidden, weight), one) for name, call in others.items()},
            bytes=2.0 * (hidden.numel() + weight.numel()) * hidden.element_size(),
            flops=6.0 * tokens * width * vocabulary,
            goal=("F.linear + F.cross_entropy", 1.2) if device == "cuda" else None,
            share=0.65 if device == "cuda" else None,
        )
    ]
