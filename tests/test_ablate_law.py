"""A planted law of size is found again, its interval means what it says, and the front is what nothing is better than."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from apps.ablate import comparison, law, pareto
from apps.ablate.comparison import Comparison, Row
from tests.ablation import ablate, answered, table

SIZES = (200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)


class Grown:
    """Stands for a row of so many parameters."""

    def __init__(self, size: int, scores: dict[int, float]) -> None:
        self.scores, self.first = scores, self
        self.parameters = size


def rows(noise: float, seeds: int, chance: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> list[Row]:
    return [
        Grown(size, {seed: 0.9 + 40 * size**-0.35 + noise * chance.standard_normal() for seed in range(seeds)})
        for size in sizes
    ]  # ty: ignore


def test_a_planted_law_is_found() -> None:
    found = law.check(rows(0.0, 2, np.random.default_rng(0)))
    assert isinstance(found, law.Check)
    assert found.law.exponent == pytest.approx(0.35, abs=1e-3)
    assert found.law.floor == pytest.approx(0.9, abs=1e-3)
    assert found.to_dict()["factor"] == pytest.approx(40, rel=0.02)
    assert found.predicted == pytest.approx(0.9 + 40 * 1e7**-0.35, abs=1e-4)
    assert (found.measured, found.low, found.high) == pytest.approx((found.predicted,) * 3, abs=1e-4)
    assert found.size == 10_000_000


def test_its_interval_grows_with_noise_and_holds_the_truth_mostly() -> None:
    held, widths = 0, []
    for number in range(8):
        found = law.check(rows(0.01, 5, np.random.default_rng(number)))
        assert isinstance(found, law.Check)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.9 + 40 * 1e7**-0.35 <= found.high
        widths.append(found.high - found.low)
    assert held >= 5  # five seeds make a bootstrap's interval somewhat short
    quiet = law.check(rows(0.001, 5, np.random.default_rng(0)))
    assert isinstance(quiet, law.Check)
    assert quiet.high - quiet.low < 0.3 * np.median(widths)  # ty: ignore


def test_a_law_never_goes_below_nothing() -> None:
    found = law.fit([1e5, 1e6, 1e7, 1e8], np.array([[4.0, 2.0, 1.0, 0.4]]))
    assert found.floor >= 0
    assert found(1e12) >= 0


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (rows(0.0, 1, np.random.default_rng(0), SIZES[:3]), "needs 4 different sizes"),
        (rows(0.0, 1, np.random.default_rng(0), (*SIZES[:3], SIZES[0])), "needs 4 different sizes"),
        ([Grown(size, {number: 1.0}) for number, size in enumerate(SIZES)], "no seed has been trained at every size"),
    ],
)
def test_too_little_for_a_law_is_said(there: list[Row], words: str) -> None:
    found = law.check(there)
    assert isinstance(found, str)
    assert words in found


def test_one_seed_has_no_interval() -> None:
    found = law.check(rows(0.0, 1, np.random.default_rng(0)))
    assert isinstance(found, law.Check)
    assert found.low is None
    assert "bootstrap" not in found.said()


def test_the_front_is_what_nothing_is_better_than() -> None:
    chance = np.random.default_rng(3)
    costs, scores = chance.integers(1, 30, 60).tolist(), chance.integers(1, 30, 60).tolist()
    found = [pareto.Point(str(at), cost, score) for at, (cost, score) in enumerate(zip(costs, scores, strict=True))]
    expected = {
        a.name
        for a in found
        if not any(b.cost <= a.cost and b.score <= a.score and (b.cost, b.score) != (a.cost, a.score) for b in found)
    }
    assert {each.name for each in pareto.front(found)} == expected
    assert 0 < len(expected) < 60


def test_the_picture_has_a_panel_a_cost(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Callable[[], list[str]] = answered(tmp_path, monkeypatch)
    text = """
law: true
seeds: [0]
variants:
  plain: {note: the base}
  wide: {note: twice the feed-forward, overrides: {model.layers.0.ffn.hidden: 128, optim.learning_rate: 0.005}}
  low: {note: a lower rate, overrides: {optim.learning_rate: 0.02}}
"""
    table(tmp_path, tiny_recipe, text)
    assert ablate(monkeypatch, tmp_path) == 0
    assert len(calls()) == 3
    found: Comparison = comparison.of(tmp_path / "cells")
    figures: list[Figure] = []
    monkeypatch.setattr(pareto, "write", lambda figure, path: figures.append(figure))
    pareto.draw(found, tmp_path / "x.png")
    panels = figures[0].axes
    assert [axes.get_title(loc="left") for axes in panels] == [f"over {name}" for name in pareto.COSTS]
    everyone, best, plain = panels[0].lines
    assert sorted(np.asarray(everyone.get_ydata())) == pytest.approx([1.005, 1.01, 1.02])
    assert list(np.asarray(best.get_ydata())) == pytest.approx([1.01, 1.005])  # of low and plain, as large, the better
    assert list(np.asarray(plain.get_ydata())) == pytest.approx([1.01])
