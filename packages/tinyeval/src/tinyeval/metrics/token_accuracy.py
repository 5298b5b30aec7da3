"""Share of positions whose most probable token is the target."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def token_accuracy(predicted: ArrayLike, targets: ArrayLike, ignored: int = -100) -> float:
    """``predicted`` and ``targets`` are integer arrays of one shape, such as (B, T); ``ignored`` targets do not count.

    Raises ValueError for different shapes and where no target counts.
    """
    guesses, right = np.asarray(predicted), np.asarray(targets)
    if guesses.shape != right.shape:
        raise ValueError(f"token_accuracy: {guesses.shape} predictions for {right.shape} targets")
    counted = right != ignored
    if not counted.any():
        raise ValueError("token_accuracy: no target counts")
    return float(np.mean(guesses[counted] == right[counted]))
