"""Student's paired test on few seeds, by printed quantiles and by chance itself."""

from __future__ import annotations

import random

import pytest

from tinyeval.statistics import PairedComparison, paired_runs, verdicts


def test_p_is_that_of_the_printed_table() -> None:
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3); of two degrees of freedom 4.3027 is the 5 % point, of four 2.7764
    found = paired_runs([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.p == pytest.approx(0.0742, abs=1e-4)
    assert found.method == "student"
    shift = 4.302653 / 3**0.5
    assert paired_runs([shift - 1, shift, shift + 1], [0.0] * 3).p == pytest.approx(0.05, abs=1e-6)
    assert (paired_runs([shift - 1, shift, shift + 1], [0.0] * 3).low) == pytest.approx(0.0, abs=1e-6)


def test_one_seed_and_equal_differences() -> None:
    assert paired_runs([1.0], [0.0]).p == 1.0
    assert paired_runs([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert paired_runs([2.0, 3.0], [1.0, 2.0]).p == 0.0
    with pytest.raises(ValueError, match="as many values as baselines"):
        paired_runs([1.0], [])


def test_of_runs_that_do_not_differ_one_in_twenty_is_told_apart_and_of_tables_one_in_twenty() -> None:
    chance = random.Random(0)

    def nothing() -> PairedComparison:
        return paired_runs([chance.gauss(0, 1) for _ in range(3)], [chance.gauss(0, 1) for _ in range(3)])

    alone = sum(nothing().p <= 0.05 for _ in range(2000))
    assert 70 <= alone <= 135
    tables = sum(
        any(word != "not distinguishable" for word in verdicts([nothing() for _ in range(10)])) for _ in range(300)
    )
    assert tables <= 27  # 15 are expected, at most
