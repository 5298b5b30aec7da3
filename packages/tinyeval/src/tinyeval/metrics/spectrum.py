"""How many directions activations use: singular values, and the effective rank of CoLA (arXiv 2502.10940).

    effective rank r(a) = the least k with  sum_{i<=k} s_i^2 >= a * sum_i s_i^2          s: singular values, the largest first

of the matrix X (N, D) of N tokens, in float64. Centred (the mean over tokens taken away, the default) it counts the directions
in which tokens differ; as they are, the mean is one more, which in a residual stream often holds most of the energy and lets
every block look as if it had rank 1. r cannot exceed min(N, D): a few hundred tokens say little about a wide model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENERGY = 0.95


@dataclass(frozen=True, eq=False)
class Spectrum:
    """values: singular values (min(N, D),) float64, the largest first."""

    values: NDArray[np.float64]

    def effective_rank(self, energy: float = ENERGY) -> int:
        """The least number of directions that hold ``energy`` of all squares; 0 where there is none.

        Raises ValueError for an energy that is not above 0 and at most 1.
        """
        if not 0 < energy <= 1:
            raise ValueError(f"energy: {energy} is not above 0 and at most 1")
        squares = self.values**2
        total = float(squares.sum())
        if total == 0.0:
            return 0
        # what rounding leaves of the sum must not cost a direction
        reached = np.cumsum(squares) >= energy * total * (1 - 1e-12)
        return int(np.argmax(reached)) + 1


def spectrum(activations: ArrayLike, centred: bool = True) -> Spectrum:
    """Of activations (N, D). Raises ValueError for another shape and for values that are not finite."""
    matrix = np.asarray(activations, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"spectrum: expected (tokens, width), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("spectrum: activations are not finite")
    if centred:
        matrix = matrix - matrix.mean(axis=0)
    return Spectrum(np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64))
