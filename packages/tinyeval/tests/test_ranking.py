"""Claim: the area under the ROC curve is the share of (right, wrong) pairs that are ranked as they should be, ties half."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tinyeval import roc_auc

# few different scores, so that there are ties within a class and between the classes
Judged = list[tuple[int, bool]]
JUDGED = some.lists(some.tuples(some.integers(-4, 4), some.booleans()), min_size=2, max_size=40).filter(
    lambda judged: len({right for _, right in judged}) == 2
)
FLOATS = some.lists(some.tuples(some.floats(allow_nan=False), some.booleans()), min_size=2, max_size=20).filter(
    lambda judged: len({right for _, right in judged}) == 2
)


def over_pairs(judged: Sequence[tuple[float, bool]]) -> float:
    """By looking at every pair, in exact arithmetic, rounded once."""
    right = [score for score, label in judged if label]
    wrong = [score for score, label in judged if not label]
    won = sum(Fraction((a > b) + (a >= b), 2) for a, b in itertools.product(right, wrong))
    return float(won / (len(right) * len(wrong)))


def area(judged: Sequence[tuple[float, bool]], of: Callable[[float], float] = float) -> float:
    return roc_auc([of(score) for score, _ in judged], [label for _, label in judged])


@given(JUDGED)
def test_it_is_the_share_of_pairs(judged: Judged) -> None:
    assert area(judged) == over_pairs(judged)


@given(FLOATS)
def test_any_floats_are_scores(judged: list[tuple[float, bool]]) -> None:
    assert area(judged) == over_pairs(judged), "infinities and negative zeros included"


@pytest.mark.parametrize("seed", range(3))
def test_of_many_scores_with_and_without_ties(seed: int) -> None:
    chance = np.random.default_rng(seed)
    right = chance.random(300) < 0.3
    scores = chance.normal(right, 1.0)
    for judged in (scores, scores.round(1), scores.round(0)):
        assert roc_auc(judged.tolist(), right.tolist()) == over_pairs(
            list(zip(judged.tolist(), right.tolist(), strict=True))
        )


@given(JUDGED)
@pytest.mark.parametrize(
    "of", [lambda x: 3 * x - 7, lambda x: x**3, math.exp, math.atan, lambda x: float("inf") if x == 4 else x]
)
def test_only_the_order_counts(of: Callable[[float], float], judged: Judged) -> None:
    assert area(judged, of) == area(judged)


@given(JUDGED, some.randoms(use_true_random=False))
def test_turned_around_it_is_the_rest_and_who_comes_first_does_not_matter(
    judged: Judged, chance: random.Random
) -> None:
    assert area(judged, lambda x: -x) == pytest.approx(1 - area(judged), abs=1e-15)
    assert roc_auc([score for score, _ in judged], [not label for _, label in judged]) == pytest.approx(
        1 - area(judged), abs=1e-15
    )
    shuffled = list(judged)
    chance.shuffle(shuffled)
    assert area(shuffled) == area(judged)


@given(some.lists(some.booleans(), min_size=2).filter(lambda right: len(set(right)) == 2), some.floats(-9, 9))
def test_who_scores_all_alike_knows_nothing(right: list[bool], score: float) -> None:
    assert roc_auc([score] * len(right), right) == 0.5


def test_the_ends() -> None:
    assert roc_auc([0.1, 0.2, 0.9], [False, False, True]) == 1.0
    assert roc_auc([0.1, 0.2, 0.9], [True, True, False]) == 0.0
    assert roc_auc([0.5, 0.5, 0.9], [True, False, False]) == 0.25
    assert roc_auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75, "scikit-learn's example"


@pytest.mark.parametrize("right", [[], [True], [False], [True, True], [False, False, False]])
def test_one_class_alone_has_no_ranking(right: list[bool]) -> None:
    assert math.isnan(roc_auc([float(index) for index in range(len(right))], right))


@pytest.mark.parametrize(
    ("scores", "right", "words"),
    [
        ([0.5], [True, False], "1 scores for 2 labels"),
        ([], [True], "0 scores for 1 labels"),
        ([0.5, math.nan], [True, False], "a score is not a number"),
        ([math.nan], [True], "a score is not a number"),
    ],
)
def test_what_cannot_be_ranked_is_one_line(scores: list[float], right: list[bool], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        roc_auc(scores, right)
    assert "\n" not in str(refused.value)
