"""The oracle of newton_schulz: one matrix at a time, the formula as printed."""

import torch


def newton_schulz(
    matrices: torch.Tensor, steps: int, coefficients: tuple[float, float, float], eps: float
) -> torch.Tensor:
    """As `tinykernels.newton_schulz` for matrices (S, M, N)."""
    a, b, c = coefficients
    results = []
    for matrix in matrices.unbind(0):
        tall = matrix.shape[0] > matrix.shape[1]
        x = matrix.T if tall else matrix
        x = x / (x.square().sum().sqrt() + eps)
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        results.append(x.T if tall else x)
    return torch.stack(results) if results else torch.zeros_like(matrices)
