"""The eight turns and flips of a grid: 0-3 are quarter turns against the clock, 4-7 the same after a transposition."""

from __future__ import annotations

import numpy as np

TURNS = range(8)


def turned(grid: np.ndarray, turn: int) -> np.ndarray:
    """(H, W) -> (H, W), or (W, H) where the turn lays the grid on its side. Raises ValueError unless 0 <= turn < 8."""
    if turn not in TURNS:
        raise ValueError(f"a turn is 0 to 7, got {turn}")
    return np.ascontiguousarray(np.rot90(grid.T if turn >= 4 else grid, turn % 4))


def undoing(turn: int) -> int:
    """The turn that gives back the grid: flips undo themselves, a quarter turn needs three more."""
    return turn if turn >= 4 else -turn % 4
