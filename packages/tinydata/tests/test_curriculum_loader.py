"""Rows of a curriculum: of one level each, in the order of the stages, each once a round, from their number alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tinydata import Curriculum, CurriculumLoader, Document, EncodedProblem, Stage, Tokenizer, train_tokenizer

LENGTH, STEPS, BATCH = 24, 50, 4
STAGES = [Stage(0.4, ("easy",)), Stage(1.0, ("hard",))]
FIRST = {"easy": 100, "hard": 200}  # the second id of a level's first problem; the others count up


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([Document("0123456789", "s")], 272)


def level(name: str, count: int) -> list[EncodedProblem]:
    """Problems of 4 to 11 tokens whose second says which one it is."""
    found = []
    for index in range(count):
        ids = np.array([0, FIRST[name] + index, *[40] * (1 + index % 8), 0], dtype=np.int64)
        found.append(EncodedProblem(ids, 2, np.zeros(len(ids), dtype=bool)))
    return found


def loader(tokenizer: Tokenizer, rank: int = 0, world: int = 1, batch: int = BATCH, seed: int = 3) -> CurriculumLoader:
    curriculum = Curriculum(STAGES, STEPS * BATCH, replay=0.2, seed=seed)
    levels = [level("easy", 30), level("hard", 60)]
    return CurriculumLoader(levels, curriculum, tokenizer, LENGTH, batch, rank, world, packed=True)


def rows(loader: CurriculumLoader, steps: int) -> list[tuple[int, ...]]:
    """Which problems each row has."""
    found = []
    for batch, _ in zip(loader, range(steps), strict=False):
        for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
            starts = np.flatnonzero((tokens == 0) & (documents >= 0))[::2]
            found.append(tuple(tokens[starts + 1].tolist()))
    return found


def test_rows_are_of_one_level_in_the_order_of_the_stages_and_come_once_a_round(tokenizer: Tokenizer) -> None:
    made = loader(tokenizer)
    found = rows(made, STEPS)
    kinds = [{"easy" if problem < FIRST["hard"] else "hard" for problem in row} for row in found]
    assert all(len(kind) == 1 for kind in kinds)
    names = [kind.pop() for kind in kinds]
    assert Counter(names[:80]) == {"easy": 80}
    assert Counter(names[80:]) == {"hard": 96, "easy": 24}
    assert [index for index, name in enumerate(names[80:]) if name == "easy"] == list(range(4, 120, 5))
    # every problem of the level is in one of its rows, and all of these come before one comes again
    size = made.sizes["easy"]
    first = found[:size]
    assert sorted(problem for row in first for problem in row) == list(range(100, 130))
    assert set(found[size : 2 * size]) == set(first)
    assert found[size : 2 * size] != first
    assert rows(loader(tokenizer, seed=4), 20) != found[:80]


def test_depths_are_counted_as_the_rows_come(tokenizer: Tokenizer) -> None:
    made = loader(tokenizer)
    depths = [1.0] * 30 + [2.0 + index % 2 for index in range(60)]
    of = {**{100 + index: 1.0 for index in range(30)}, **{200 + index: 2.0 + index % 2 for index in range(60)}}
    found = rows(made, STEPS)
    expected = [Counter(of[problem] for row in part for problem in row) for part in (found[:80], found[80:])]
    assert made.depths(depths) == [dict(sorted(count.items())) for count in expected]


def test_a_place_is_a_place_for_any_number_of_ranks(tokenizer: Tokenizer) -> None:
    whole = rows(loader(tokenizer), STEPS)
    began = loader(tokenizer)
    rows(began, 19)
    state = began.state_dict()
    assert began.stage == 0
    halves = []
    for rank in range(2):
        half = loader(tokenizer, rank, 2, batch=2)
        half.load_state_dict(state)
        halves.append(rows(half, 5))
        assert half.stage == 1
    at = state["position"]
    together = [row for step in range(5) for rank in range(2) for row in halves[rank][2 * step : 2 * step + 2]]
    assert together == whole[at : at + 20]


def test_what_cannot_be_is_refused(tokenizer: Tokenizer) -> None:
    curriculum = Curriculum(STAGES, 20)
    with pytest.raises(ValueError, match="1 sets of problems for 2 levels"):
        CurriculumLoader([level("easy", 3)], curriculum, tokenizer, LENGTH, 1)
    with pytest.raises(ValueError, match="level 'hard' has no problems"):
        CurriculumLoader([level("easy", 3), []], curriculum, tokenizer, LENGTH, 1)
    with pytest.raises(ValueError, match="one has 11 tokens, a row 8"):
        CurriculumLoader([level("easy", 8), level("hard", 1)], curriculum, tokenizer, 8, 1)
