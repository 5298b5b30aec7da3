"""Effective ranks of matrices whose rank is known, and of the mean that centring takes away."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinyeval.metrics import spectrum
from tinyeval.pareto import front


def planted(rank: int, tokens: int = 400, width: int = 24, seed: int = 0) -> np.ndarray:
    """(tokens, width) with `rank` directions of equal energy about the mean, exactly."""
    chance = np.random.default_rng(seed)
    left = chance.normal(size=(tokens, rank))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(chance.normal(size=(width, rank)))
    return left @ right.T


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_a_planted_rank_is_found(rank: int) -> None:
    found = spectrum(planted(rank))
    assert found.effective_rank(1.0) == rank
    assert found.effective_rank() == math.ceil(0.95 * rank - 1e-9)
    assert found.values[:rank] == pytest.approx(np.ones(rank))
    assert found.values[rank:] == pytest.approx(np.zeros(24 - rank), abs=1e-12)


def test_energies_of_known_directions() -> None:
    # squares 64, 25, 9, 2 of 100: 89 % in two directions, 98 % in three
    matrix = planted(4) @ np.eye(24)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    scaled = left[:, :4] * np.sqrt([64.0, 25.0, 9.0, 2.0]) @ right[:4]
    found = spectrum(scaled)
    assert [found.effective_rank(energy) for energy in (0.5, 0.64, 0.89, 0.95, 0.98, 0.99, 1.0)] == [
        1,
        1,
        2,
        3,
        3,
        4,
        4,
    ]


def test_the_mean_is_a_direction_only_without_centring() -> None:
    moved = planted(10) + 100.0
    assert spectrum(moved).effective_rank() == 10
    assert spectrum(moved, centred=False).effective_rank() == 1
    assert spectrum(moved.astype(np.float32)).effective_rank() == 10, "float32 activations are computed with in float64"


def test_what_has_no_spectrum() -> None:
    assert spectrum(np.ones((5, 3))).effective_rank() == 0
    for wrong in (np.ones(3), np.ones((0, 3)), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="spectrum: "):
            spectrum(wrong)
    with pytest.raises(ValueError, match="energy"):
        spectrum(planted(2)).effective_rank(0.0)


def test_the_front_is_what_nobody_beats() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (4.0, 3.0), (5.0, 1.0), (1.0, 5.0)]
    assert front(points) == [0, 1, 4, 5]
    assert front([(3.0, 3.0)]) == [0]
    assert front([]) == []
    chance = np.random.default_rng(1)
    drawn = chance.integers(0, 6, size=(40, 2)).tolist()
    by_hand = [
        i for i, (x, y) in enumerate(drawn) if not any((a <= x and b < y) or (a < x and b <= y) for a, b in drawn)
    ]
    assert front(drawn) == by_hand
    with pytest.raises(ValueError, match="not a number"):
        front([(math.nan, 1.0)])
    with pytest.raises(ValueError, match="different lengths"):
        front([(1.0, 2.0), (1.0,)])
