"""Chains of pointers: every answer is found again by walking the edges that the row states."""

from __future__ import annotations

import numpy as np
import pytest

from tinydata.synthetic.hops import Hops


def test_answers_follow_the_edges_that_are_stated() -> None:
    task = Hops(nodes=7, steps=5, queries=3)
    tokens, answers = task.batch(50, np.random.default_rng(0))
    assert tokens.shape == answers.shape == (50, task.length) == (50, 7 + 15)
    assert tokens.max() < task.vocab_size
    for row, expected in zip(tokens.tolist(), answers.tolist(), strict=True):
        follows = dict(divmod(token - 8, 7) for token in row[:7])
        assert sorted(follows) == list(range(7))
        assert expected[:7] == [-100] * 7
        at = 0
        for token, answer in zip(row[7:], expected[7:], strict=True):
            at = follows[at if token == 7 else token]
            assert answer == at
        node, seen = 0, []
        for _ in range(7):
            node = follows[node]
            seen += [node]
        assert sorted(seen) == list(range(7)), "a single cycle: no chain comes back early"
        assert [token == 7 for token in row[7:]] == [False, True, True, True, True] * 3


def test_rows_differ_and_seeds_repeat() -> None:
    task = Hops()
    first, again, other = (task.batch(8, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert len({tuple(row) for row in first.tolist()}) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"nodes": 1}, "nodes: 1 make no chain"), ({"steps": 0}, "steps: 0"), ({"queries": 0}, "queries: 0")],
)
def test_what_cannot_be_says_so(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hops(**settings)
