"""The paired interval is Student's: his own data, its promised rate of false verdicts, and its blind spots said aloud."""

import math

import numpy as np
import pytest

from tinyeval import paired_difference

# additional hours of sleep by ten patients under two drugs (Student 1908; Cushny and Peebles 1905), the classic example
DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_own_example() -> None:
    found = paired_difference(DEXTRO, LAEVO)
    assert (found.mean, found.n) == (pytest.approx(-1.58), 10)
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=1e-6), pytest.approx(-0.7001142, abs=1e-6))
    assert found.distinguishable
    wide = paired_difference(DEXTRO, LAEVO, confidence=0.9999)
    assert wide.low < 0 < wide.high
    assert not wide.distinguishable


def false_verdicts(pairs: int, comparisons: int = 3000) -> float:
    """Share of comparisons of a thing with itself that claim a difference; seeds differ much more than arms."""
    chance = np.random.default_rng(pairs)
    claimed = 0
    for _ in range(comparisons):
        seeds = chance.normal(1.4, 0.5, pairs)
        first, second = (seeds + chance.normal(0, 0.01, pairs) for _ in range(2))
        claimed += paired_difference(first.tolist(), second.tolist()).distinguishable
    return claimed / comparisons


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_a_thing_differs_from_itself_in_five_of_a_hundred_comparisons(pairs: int) -> None:
    # four standard errors of a share of 5 % in 3000 comparisons: 1.6 %
    assert false_verdicts(pairs) == pytest.approx(0.05, abs=0.016)


def test_pairing_finds_what_lies_below_the_spread_of_the_seeds() -> None:
    chance = np.random.default_rng(0)
    seeds = chance.normal(1.4, 0.5, 5)
    better = seeds - 0.05 + chance.normal(0, 0.005, 5)
    found = paired_difference(better.tolist(), seeds.tolist())
    assert found.distinguishable
    assert found.low < -0.05 < found.high


def test_one_pair_tells_nothing_apart() -> None:
    found = paired_difference([1.0], [2.0])
    assert (found.mean, found.low, found.high) == (-1.0, -math.inf, math.inf)
    assert not found.distinguishable


def test_equal_values_are_not_distinguishable() -> None:
    assert not paired_difference([1.5, 1.25, 1.0], [1.5, 1.25, 1.0]).distinguishable


@pytest.mark.parametrize(
    ("values", "baseline", "words"),
    [([], [], "got 0 and 0"), ([1.0], [1.0, 2.0], "got 1 and 2"), ([math.nan, 1.0], [1.0, 1.0], "finite")],
)
def test_what_is_no_comparison_is_one_line(values: list[float], baseline: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        paired_difference(values, baseline)
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired_difference([1.0, 2.0], [1.0, 3.0], confidence=1.0)
