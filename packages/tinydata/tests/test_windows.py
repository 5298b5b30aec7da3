"""Claim: overlapping windows learn every token exactly once, each with at least `overlap` tokens before it; problems that are
too long for a row become pieces of which the same holds, whatever of them is given.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from tinydata import Document, EncodedProblem, ProblemLoader, encode_problems, split_long, train_tokenizer, windows


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_every_token_is_learned_once_with_enough_before_it(length: int) -> None:
    for overlap in range(length):
        for size in range(40):
            ids = np.arange(100, 100 + size)
            learned = []
            for number, window in enumerate(windows(ids, length, overlap)):
                assert 1 <= len(window.tokens) == len(window.targets) <= length
                for slot, (token, target) in enumerate(
                    zip(window.tokens.tolist(), window.targets.tolist(), strict=True)
                ):
                    if target == -100:
                        continue
                    assert target == token + 1
                    assert slot >= (overlap if number else 0)
                    learned.append(target)
            assert learned == ids[1:].tolist(), "in their order, and nothing but the first is left out"


def test_without_overlap_windows_are_the_pieces_of_the_row_plan() -> None:
    found = [(w.tokens.tolist(), w.targets.tolist()) for w in windows(np.array([9, 1, 2, 3, 4, 9]), 2)]
    assert found == [([9, 1], [1, 2]), ([2, 3], [3, 4]), ([4, 9], [9, -100])]


def test_the_example_of_the_module() -> None:
    found = [(w.tokens.tolist(), w.targets.tolist()) for w in windows(np.arange(9), 5, 2)]
    assert found == [([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]), ([3, 4, 5, 6, 7], [-100, -100, 6, 7, 8])]


def long_problems() -> list[EncodedProblem]:
    """Every id is another one, so that it can be told which were learned."""
    draw, found, first = random.Random(0), [], 1000
    for _ in range(300):
        size = draw.randrange(3, 60)
        prompt = draw.randrange(1, size)
        given = np.array([draw.random() < 0.3 for _ in range(size)])
        given[-1] = False
        found.append(EncodedProblem(np.arange(first, first + size), prompt, given))
        first += size
    return found


@pytest.mark.parametrize(("length", "overlap"), [(2, 1), (5, 1), (5, 4), (16, 5), (100, 50)])
def test_what_a_long_problem_learns_is_learned_once(length: int, overlap: int) -> None:
    problems = long_problems()
    expected = [
        int(token)
        for problem in problems
        for index, token in enumerate(problem.ids)
        if index >= problem.prompt and not problem.given[index]
    ]
    pieces = split_long(problems, length, overlap)
    assert all(len(piece.ids) <= length for piece in pieces)
    learned: list[int] = []
    begins = {int(problem.ids[0]) for problem in problems}
    for piece in pieces:
        chosen = (np.arange(len(piece.ids)) >= piece.prompt) & ~piece.given
        assert chosen.any(), "a piece without anything to learn is a wasted row"
        assert chosen.argmax() >= (1 if int(piece.ids[0]) in begins else overlap)
        learned += piece.ids[chosen].tolist()
    assert learned == expected


def test_pieces_are_rows_of_the_loader() -> None:
    byte_tokenizer = train_tokenizer([Document("How? So.", "x")], 300)
    pairs = [("How?", "So " * count) for count in (1, 40, 90)]
    problems = encode_problems(pairs, byte_tokenizer)
    with pytest.raises(ValueError, match="a row 64"):
        ProblemLoader(problems, byte_tokenizer, 64, 2)
    loader = ProblemLoader(split_long(problems, 64, 16), byte_tokenizer, 64, 2, packed=True)
    learned = sum(batch.target_count for batch in loader.epoch_batches())
    assert learned == sum(len(problem.ids) - problem.prompt for problem in problems)


def test_short_problems_stay_as_they_are() -> None:
    problems = long_problems()
    assert split_long(problems, 60, 1) == problems


@pytest.mark.parametrize(
    "make", [lambda: list(windows(np.arange(3), 4, 4)), lambda: list(windows(np.arange(3), 4, -1))]
)
def test_overlaps_that_make_no_sense(make) -> None:
    with pytest.raises(ValueError, match="windows: overlap"):
        make()
    with pytest.raises(ValueError, match="windows: overlap 0 is not between 1"):
        split_long([], 4, 0)
