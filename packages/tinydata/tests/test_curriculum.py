"""Curricula: stages by the share of the run, replays exact at every moment, every example once a round, and no memory."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata import Curriculum, Stage, depth_histogram, levels_by, within_reach
from tinydata.synthetic.exercises import exercises

# as the seed has it: 1 step, 2 steps, 3 steps with arithmetic, code
STAGES = [
    Stage(0.25, ("1 step",)),
    Stage(0.5, ("2 steps",)),
    Stage(0.75, ("3 steps", "arithmetic")),
    Stage(1.0, ("code",)),
]
SIZES = {"1 step": 70, "2 steps": 1000, "3 steps": 40, "arithmetic": 33, "code": 5}


def all_rows(curriculum: Curriculum, count: int) -> list[tuple[str, int]]:
    levels, rows = curriculum.rows(np.arange(count), SIZES)
    return [(curriculum.levels[level], row) for level, row in zip(levels.tolist(), rows.tolist(), strict=True)]


def test_stages_are_where_they_are_said_to_be() -> None:
    curriculum = Curriculum(STAGES, 20_000)
    assert [curriculum.stage(step) for step in (0, 4999, 5000, 9999, 10_000, 15_000, 19_999, 10**6)] == [
        0, 0, 1, 1, 2, 3, 3, 3,
    ]  # fmt: skip
    assert curriculum.levels == ("1 step", "2 steps", "3 steps", "arithmetic", "code")
    made = curriculum.choices(np.arange(20_000))
    names = np.array(curriculum.levels)[made.level]
    assert set(names[:5000]) == {"1 step"}
    assert set(names[5000:10_000][~made.replayed[5000:10_000]]) == {"2 steps"}
    assert Counter(names[15_000:].tolist()) == {
        "code": 3750, "1 step": 313, "2 steps": 313, "3 steps": 312, "arithmetic": 312,
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    replay=st.integers(0, 99).map(lambda percent: percent / 100),
    examples=st.integers(20, 3000),
    start=st.integers(0, 2999),
    seed=st.integers(0, 9),
)
def test_replays_are_exact_at_every_moment_and_nothing_is_remembered(
    replay: float, examples: int, start: int, seed: int
) -> None:
    curriculum = Curriculum(STAGES, examples, replay, seed)
    made = curriculum.choices(np.arange(examples))
    for stage in range(4):
        here = made.replayed[made.stage == stage]
        share = Fraction(replay).limit_denominator(100) if stage else Fraction(0)
        for count, replays in enumerate(np.cumsum(here).tolist(), 1):
            assert replays == int(count * share)
    start %= examples
    alone = Curriculum(STAGES, examples, replay, seed).rows(np.arange(start, examples), SIZES)
    whole = curriculum.rows(np.arange(examples), SIZES)
    assert all(np.array_equal(one, part[start:]) for one, part in zip(alone, whole, strict=True))
    assert np.array_equal(curriculum.choices(np.array([start])).level, made.level[start : start + 1])


def test_every_example_of_a_level_comes_once_a_round_in_an_order_of_the_seed() -> None:
    curriculum = Curriculum(STAGES, 4000, replay=0.2, seed=1)
    rows = all_rows(curriculum, 4000)
    assert sorted(row for _, row in rows[:70]) == list(range(70))
    assert sorted(row for _, row in rows[70:140]) == list(range(70))
    assert rows[:70] != rows[70:140]
    new = [row for level, row in rows[1000:2000] if level == "2 steps"]
    assert len(new) == 800 == len(set(new))
    old = [row for level, row in rows[1000:2000] if level == "1 step"]
    assert len(old) == 200
    assert set(Counter(old).values()) == {2, 3}
    assert rows == all_rows(Curriculum(STAGES, 4000, replay=0.2, seed=1), 4000)
    assert rows != all_rows(Curriculum(STAGES, 4000, replay=0.2, seed=2), 4000)
    assert all(row < SIZES[level] for level, row in rows)


def test_a_level_that_is_new_again_is_no_replay() -> None:
    curriculum = Curriculum([Stage(0.5, ("a",)), Stage(1, ("a", "b"))], 100, replay=0.5)
    made = curriculum.choices(np.arange(100))
    assert not made.replayed.any()
    assert Counter(made.level[50:].tolist()) == {0: 25, 1: 25}


def test_the_histogram_counts_what_the_run_will_see() -> None:
    pools = {f"{steps} step": [len(one.steps) for one in exercises(1, 50, steps=(steps, steps))] for steps in (1, 2, 3)}
    curriculum = Curriculum(
        [Stage(0.3, ("1 step",)), Stage(0.6, ("2 step",)), Stage(1.0, ("3 step",))], 1000, replay=0.25
    )
    assert depth_histogram(curriculum, pools) == [{1: 300}, {1: 75, 2: 225}, {1: 50, 2: 50, 3: 300}]
    mixed = depth_histogram(Curriculum([Stage(1, ("x",))], 200_000), {"x": [5, 9, 5, 7]})
    assert mixed == [{5: 100_000, 7: 50_000, 9: 50_000}]


def test_examples_within_reach_are_kept() -> None:
    rates = {"never": 0.0, "rarely": 0.19, "low": 0.2, "half": 0.5, "high": 0.8, "often": 0.81, "always": 1.0}
    assert within_reach(rates) == ["low", "half", "high"]
    assert within_reach(rates, 0.0, 1.0) == list(rates)
    assert within_reach({}) == []
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"the pass rate of '7' is"):
            within_reach({7: wrong})
    with pytest.raises(ValueError, match=r"bounds 0\.8 and 0\.2"):
        within_reach(rates, 0.8, 0.2)


def test_levels_by_length() -> None:
    lengths = {"a": 3, "b": 10, "c": 11, "d": 99, "e": 10}
    assert levels_by(lengths, (10, 50)) == [["a", "b", "e"], ["c"], ["d"]]
    assert levels_by(lengths, ()) == [list(lengths)]
    with pytest.raises(ValueError, match="do not grow"):
        levels_by(lengths, (5, 5))
    with pytest.raises(ValueError, match="no number"):
        levels_by({"a": float("nan")}, (1,))


@pytest.mark.parametrize(
    ("stages", "settings", "message"),
    [
        ([], {}, "no stages"),
        ([Stage(0.5, ("a",))], {}, r"end at \[0.5\]"),
        ([Stage(0.5, ("a",)), Stage(0.4, ("a",)), Stage(1, ("a",))], {}, "must grow"),
        ([Stage(0.0, ("a",)), Stage(1, ("a",))], {}, "from above 0"),
        ([Stage(float("nan"), ("a",)), Stage(1, ("a",))], {}, "must grow"),
        ([Stage(0.3, ("a",)), Stage(float("nan"), ("a",)), Stage(1, ("a",))], {}, "must grow"),
        ([Stage(1, ())], {}, "stage 0 has no levels"),
        ([Stage(0.001, ("a",)), Stage(1, ("b",))], {}, "stage 0 has no example among 100"),
        ([Stage(1, ("a",))], {"replay": 1.0}, "replay 1.0"),
        ([Stage(1, ("a",))], {"replay": float("nan")}, "replay nan"),
    ],
)
def test_what_cannot_be_says_so(stages: list[Stage], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curriculum(stages, 100, **settings)
    curriculum = Curriculum([Stage(1, ("a",))], 10)
    with pytest.raises(ValueError, match="level 'a' has no examples"):
        curriculum.rows(np.arange(3), {})
    with pytest.raises(ValueError, match="no example -1"):
        curriculum.choices(np.array([-1]))
