"""Standard errors, tests and corrections against closed forms and enumeration, and kept promises: A/A and planted 2 %."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tinyeval.statistics import (
    PairedComparison,
    bootstrap_interval,
    holm,
    items_needed,
    mcnemar,
    mean_estimate,
    paired_items,
    proportion_estimate,
    sign_flip,
    verdict,
    verdicts,
)


def test_standard_error_of_a_mean_by_hand() -> None:
    found = mean_estimate([1.0, 2.0, 3.0, 6.0])  # mean 3, squares 4 1 0 9 = 14, s^2 = 14 / 3
    assert (found.mean, found.n) == (3.0, 4)
    assert found.standard_error == pytest.approx(math.sqrt(14 / 3 / 4))
    assert found.high == pytest.approx(3 + 3.182446 * found.standard_error, abs=1e-5)
    assert mean_estimate([0.0, 1.0, 1.0, 0.0]).standard_error == pytest.approx(math.sqrt(0.25 / 3)), "as lm-eval"
    assert mean_estimate([2.0]).standard_error == math.inf


def test_proportions_by_hand() -> None:
    found = proportion_estimate(15, 50)
    assert (found.mean, found.standard_error) == (0.3, pytest.approx(math.sqrt(0.21 / 50)))
    # Wilson's interval of 15 of 50, as printed by Brown, Cai and DasGupta's formulas worked with z = 1.96
    assert (found.low, found.high) == (pytest.approx(0.19103, abs=2e-5), pytest.approx(0.43750, abs=2e-4))
    none, every = proportion_estimate(0, 20), proportion_estimate(20, 20)
    assert none.low == pytest.approx(0.0, abs=1e-12)
    assert none.high == pytest.approx(1.959964**2 / (20 + 1.959964**2), abs=1e-6)
    assert every.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_wilsons_interval_covers(share: float) -> None:
    draws = np.random.default_rng(7).binomial(200, share, 2000)
    within = [found.low <= share <= found.high for found in (proportion_estimate(int(k), 200) for k in draws)]
    assert np.mean(within) > 0.93


def brute_mcnemar(better: int, worse: int) -> Fraction:
    """By counting every outcome of better + worse fair coins."""
    n, edge = better + worse, min(better, worse)
    extreme = sum(1 for coins in itertools.product((0, 1), repeat=n) if sum(coins) <= edge)
    return min(Fraction(1), Fraction(2 * extreme, 2**n))


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (0, 5), (3, 9), (6, 6), (12, 2)])
def test_mcnemar_counts_coins(better: int, worse: int) -> None:
    assert mcnemar(better, worse) == pytest.approx(float(brute_mcnemar(better, worse)), rel=1e-12)
    assert mcnemar(better, worse) == mcnemar(worse, better)


def test_mcnemar_of_thousands_is_the_normal_distribution() -> None:
    # with the continuity correction: z = (|b - c| - 1) / sqrt(b + c)
    z = (2600 - 2400 - 1) / math.sqrt(5000)
    assert mcnemar(2600, 2400) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)


@given(some.lists(some.integers(-5, 5), min_size=1, max_size=9))
def test_sign_flip_is_all_sign_patterns(differences: list[int]) -> None:
    reached = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= abs(sum(differences))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    assert sign_flip(differences) == pytest.approx(sum(reached) / len(reached))


def test_drawn_sign_flips_agree_with_student() -> None:
    chance = np.random.default_rng(1)
    differences = chance.normal(0.05, 1.0, 400)
    t = differences.mean() / (differences.std(ddof=1) / 20)
    normal = math.erfc(abs(t) / math.sqrt(2))
    assert sign_flip(differences.tolist()) == pytest.approx(normal, abs=0.03)
    assert sign_flip((differences + 1).tolist()) == pytest.approx(1 / 10_001), "never 0"
    assert sign_flip(differences.tolist(), seed=3) == sign_flip(differences.tolist(), seed=3)


def test_which_test_is_used() -> None:
    binary = paired_items([1, 1, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 0])
    assert (binary.method, binary.p) == ("mcnemar", pytest.approx(2 / 2**5))
    scores = paired_items([0.5, 1, 0.25], [0.0, 0.5, 0.0])
    assert (scores.method, scores.p) == ("sign flip", pytest.approx(2 / 8))
    assert paired_items([0.5, 0.25], [0.5, 0.25]).p == 1.0
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_items([1, 0], [1])


def test_bootstrap_of_a_mean_is_students_and_seeded() -> None:
    values = np.random.default_rng(2).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values, seed=5)
    reach = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == (
        pytest.approx(values.mean() - reach, abs=0.03),
        pytest.approx(values.mean() + reach, abs=0.03),
    )
    assert bootstrap_interval(values, seed=5) == (low, high)
    assert bootstrap_interval(values, seed=6) != (low, high)
    assert bootstrap_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_bootstrap_of_paired_rows_keeps_the_pairs() -> None:
    shared = np.random.default_rng(3).normal(0, 10, 300)
    rows = np.stack((shared + 0.5, shared), axis=1)
    low, high = bootstrap_interval(rows, lambda drawn: float((drawn[:, 0] - drawn[:, 1]).mean()), resamples=200)
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.5))
    with pytest.raises(ValueError, match="needs a statistic"):
        bootstrap_interval(rows)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.5])


@given(some.lists(some.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_words() -> None:
    def of(mean: float, p: float) -> PairedComparison:
        return PairedComparison(mean, mean - 1, mean + 1, p, 10, "mcnemar")

    assert verdict(of(0.1, 0.01)) == "better"
    assert verdict(of(0.1, 0.01), higher_is_better=False) == "worse"
    assert verdict(of(-0.1, 0.01)) == "worse"
    assert verdict(of(0.1, 0.06)) == "not distinguishable"
    together = [of(0.1, 0.04), of(-0.1, 0.01)]
    assert verdicts(together) == ["better", "worse"], "0.01 * 2 and then 0.04 * 1"
    assert verdicts([of(0.1, 0.04), of(-0.1, 0.04)]) == ["not distinguishable"] * 2
    assert verdicts(together, higher_is_better=[True, False]) == ["better", "better"]


def models(chance: np.random.Generator, items: int, gain: float, agreement: float = 0.8) -> tuple[list[int], list[int]]:
    """Two models on the same items. Both take over a shared outcome on `agreement` of the items and else guess on their
    own with half their chances, so they disagree on (1 - agreement) / 2; `gain` of all items are won on top."""
    shared = chance.random(items) < 0.5
    own = chance.random(items) >= agreement
    first, second = (np.where(own, chance.random(items) < 0.5, shared) for _ in range(2))
    lost = np.flatnonzero(~first)
    first[chance.choice(lost, round(gain * items), replace=False)] = True
    return first.astype(int).tolist(), second.astype(int).tolist()


def test_a_hundred_models_that_do_not_differ() -> None:
    chance = np.random.default_rng(11)
    comparisons = [paired_items(*models(chance, 1000, 0.0)) for _ in range(100)]
    together = verdicts(comparisons)
    assert len(together) - together.count("not distinguishable") <= 5
    alone = [
        verdict(comparison)
        for _ in range(10)
        for comparison in [paired_items(*models(chance, 300, 0.0)) for _ in range(100)]
    ]
    # three standard errors of 5 % in 1000
    assert 1 - alone.count("not distinguishable") / len(alone) <= 0.05 + 0.021


def test_a_hundred_scores_that_do_not_differ() -> None:
    chance = np.random.default_rng(12)
    comparisons = []
    for _ in range(100):
        shared = chance.gamma(2.0, 1.0, 300)
        first, second = (shared + chance.gamma(1.0, 0.2, 300) for _ in range(2))
        comparisons.append(paired_items(first.tolist(), second.tolist(), resamples=2000))
    assert verdicts(comparisons).count("not distinguishable") >= 95


@pytest.mark.parametrize(("power", "items", "least"), [(0.8, 2353, 76), (0.9, 3149, 80)])
def test_two_percent_is_found_with_the_items_that_are_needed(power: float, items: int, least: int) -> None:
    # they disagree on (1 - 0.8) / 2 = 10 % of the items, and on most of the 2 % that were planted
    assert items_needed(0.02, 0.12, power=power) == items
    chance = np.random.default_rng(13)
    found = [verdict(paired_items(*models(chance, items, 0.02))) for _ in range(100)]
    assert found.count("better") >= least, "four times in five; one standard error of that is 4 of 100"
    assert found.count("worse") == 0


def test_fewer_items_do_not_show_two_percent() -> None:
    chance = np.random.default_rng(14)
    found = [verdict(paired_items(*models(chance, 300, 0.02))) for _ in range(100)]
    assert found.count("better") < 40


def test_the_items_needed_are_the_documented_ones() -> None:
    assert [items_needed(0.02, q) for q in (0.05, 0.1, 0.2, 0.5)] == [979, 1960, 3923, 9809]
    with pytest.raises(ValueError, match="difference <= disagreement"):
        items_needed(0.1, 0.05)
