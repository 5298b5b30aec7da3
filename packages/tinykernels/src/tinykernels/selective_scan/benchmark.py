"""Benchmark cases of selective_scan against mambapy's scan (if installed) and the loop over positions."""

import importlib
import importlib.util
from collections.abc import Callable

import torch

from tinykernels.bench.case import Case, gradient_error, relative_error, training_step
from tinykernels.selective_scan.operation import selective_scan

Leaves = tuple[torch.Tensor, ...]


def cases(device: str) -> list[Case]:
    """Forward, and forward + backward: 8 x 2048 x 1024 with 16 states in bfloat16 on a GPU, 4 x 512 x 512 with 16 in
    float32 on a CPU."""
    gpu = device == "cuda"
    (batch, length, dim, states), dtype = (
        ((8, 2048, 1024, 16), torch.bfloat16) if gpu else ((4, 512, 512, 16), torch.float32)
    )
    leaves = draw(batch, length, dim, states, device, dtype)
    upstream = torch.randn(batch, length, dim, device=device).to(dtype)
    small = draw(2, 64, 48, states, device, dtype)
    small_upstream = torch.randn(2, 64, 48, device=device).to(dtype)
    exact = tuple(t.detach().double().cpu().requires_grad_() for t in small)
    rivals = {"loop": loop} | ({} if gpu or importlib.util.find_spec("mambapy") is None else {"mambapy": mambapy})
    step = training_step(ours, leaves, upstream)
    compiled_step = training_step(torch.compile(ours), leaves, upstream)
    small_step = training_step(ours, small, small_upstream)
    oracle = training_step(loop, exact, small_upstream.double().cpu())
    bound, elements = (3e-2 if gpu else 1e-5), batch * length * dim
    size = f"{batch}x{length}x{dim}x{states}"

    def forward(function: Callable[..., torch.Tensor]) -> Callable[[], torch.Tensor]:
        return lambda: function(*(leaf.detach() for leaf in leaves))

    return [
        Case(
            operation="selective_scan",
            label=f"{size} forward",
            ours=forward(ours),
            error=lambda: relative_error(ours(*small).cpu(), loop(*exact)),
            bound=bound,
            rivals={name: forward(function) for name, function in rivals.items()},
            bytes=elements * (2.0 * leaves[0].element_size() + 4),
        ),
        Case(
            operation="selective_scan",
            label=f"{size} forward + backward",
            ours=step,
            error=gradient_error(lambda: tuple(t.cpu() for t in small_step()), oracle),
            bound=bound,
            rivals={name: training_step(function, leaves, upstream) for name, function in rivals.items()},
            bytes=elements * (5.0 * leaves[0].element_size() + 12),
            goal=("mambapy", 4.0) if "mambapy" in rivals else None,
        ),
        Case(
            operation="selective_scan",
            label=f"{size} forward + backward, compiled",
            ours=compiled_step,
            error=gradient_error(compiled_step, step),
            bound=bound,
            rivals={name: training_step(function, leaves, upstream) for name, function in rivals.items()},
            bytes=elements * (5.0 * leaves[0].element_size() + 12),
            goal=("mambapy", 8.0) if "mambapy" in rivals else None,
        ),
    ]


def draw(batch: int, length: int, dim: int, states: int, device: str, dtype: torch.dtype) -> Leaves:
    """x, delta, A, B, C as a Mamba layer makes them: small steps, decays of every speed."""
    x = torch.randn(batch, length, dim, device=device).to(dtype)
    delta = torch.rand(batch, length, dim, device=device) * 0.1
    A = -torch.arange(1, states + 1, device=device).float().repeat(dim, 1)
    B, C = (torch.randn(batch, length, states, device=device).to(dtype) for _ in range(2))
    return tuple(t.requires_grad_() for t in (x, delta, A, B, C))


def ours(x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    return selective_scan(x, delta, A, B, C)[0]


def loop(x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    """The recurrence over unbound positions, everything of one position at once."""
    state, outputs = torch.zeros_like(A).expand(x.shape[0], -1, -1), []
    for x_t, delta_t, B_t, C_t in zip(*(t.unbind(1) for t in (x, delta, B, C)), strict=True):
        entering = (delta_t * x_t)[:, :, None] * B_t[:, None]
        state = torch.exp(delta_t[:, :, None] * A) * state + entering
        outputs.append((state @ C_t[:, :, None].to(state.dtype)).squeeze(-1))
    return torch.stack(outputs, 1).to(x.dtype)


def mambapy(x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    """mambapy's layer around its parallel scan, as MambaBlock.selective_scan writes it."""
    pscan = importlib.import_module("mambapy.pscan").pscan
    decays = torch.exp(delta.unsqueeze(-1) * A)
    entering = (delta.unsqueeze(-1) * B.unsqueeze(2)) * x.unsqueeze(-1)
    return (pscan(decays, entering) @ C.unsqueeze(-1)).squeeze(3)
