"""Student's paired test on few seeds, by printed quantiles and by chance itself."""

from __future__ import annotations

import random

import pytest

from tinyeval import student_t
from tinyeval.statistics import PairedComparison, many_runs, paired_runs, verdicts


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


def tried(
    chance: random.Random, ways: int, seeds: int, noise: dict[int, float] | None = None, gain: float = 0.0
) -> dict[str, dict[int, float]]:
    """Scores of ways that differ in nothing (but `gain`, of the last one), seeds that do, and noise of size 1 or as said."""
    hard = [chance.gauss(0, 5) for _ in range(seeds)]
    size = noise or {}
    table = {
        str(way): {seed: hard[seed] + chance.gauss(0, size.get(way, 1.0)) for seed in range(seeds)}
        for way in range(ways)
    }
    last = table[str(ways - 1)]
    table[str(ways - 1)] = {seed: score + gain for seed, score in last.items()}
    return table


def test_two_ways_are_students_paired_test_and_of_more_the_noise_is_pooled() -> None:
    chance = random.Random(1)
    table = tried(chance, 3, 4)
    two = {name: table[name] for name in ("0", "1")}
    alone = many_runs(two, "0")["1"]
    assert alone == paired_runs(list(two["1"].values()), list(two["0"].values()))
    # by hand: an additive fit to three ways and two seeds, whose residuals are +-1/6 (plain, a) and -+1/3 (b)
    found = many_runs({"plain": {0: 1.0, 1: 2.0}, "a": {0: 2.0, 1: 3.0}, "b": {0: 5.0, 1: 5.5}}, "plain")
    assert (found["a"].mean, found["a"].n, found["a"].method) == (1.0, 2, "blocks")
    error = (2 * (2 * (1 / 12) ** 2 + (1 / 6) ** 2) / 2) ** 0.5  # s sqrt(2 / S), S = 2
    assert found["a"].high - 1.0 == pytest.approx(4.302653 * error, rel=1e-6)
    assert found["a"].p == pytest.approx(2 * student_t.tail(1 / error, 2), rel=1e-9)


def test_of_many_ways_that_do_not_differ_one_table_in_twenty_tells_any_apart() -> None:
    """Two seeds of 20 ways, whatever the seeds are like; and of the others, if one has five times their noise."""
    chance = random.Random(2)
    for noise in ({}, {7: 5.0}):
        tables = 0
        for _ in range(400):
            found = many_runs(tried(chance, 20, 2, noise), "0")
            words = dict(zip(found, verdicts(list(found.values())), strict=True))
            tables += any(word != "not distinguishable" for name, word in words.items() if int(name) not in noise)
        assert tables <= 32, noise  # 20 are expected, at most; 32 has a chance of 0.4 %


def test_two_seeds_of_many_ways_find_what_two_differences_cannot() -> None:
    chance = random.Random(3)
    pooled = own = 0
    for _ in range(100):
        table = tried(chance, 45, 2, gain=5.0)
        found = many_runs(table, "0")
        pooled += verdicts(list(found.values()))[-1] == "better"
        single = [paired_runs(list(each.values()), list(table["0"].values())) for each in table.values()][1:]
        own += verdicts(single)[-1] == "better"
    assert pooled >= 80
    assert own <= 5


def test_a_noisier_way_is_judged_by_itself_and_a_noisier_baseline_by_nobody_else() -> None:
    chance = random.Random(4)
    found = many_runs(tried(chance, 20, 3, {5: 100.0}), "0")
    assert [name for name, each in found.items() if each.method == "student"] == ["5"]
    found = many_runs(tried(chance, 20, 3, {0: 100.0}), "0")
    assert {each.method for each in found.values()} == {"student"}


def test_missing_seeds_and_equal_scores() -> None:
    table = tried(random.Random(5), 10, 3)
    del table["3"][1], table["4"][0], table["4"][1], table["4"][2]
    table["6"] = {0: 1.0}
    found = many_runs(table, "0")
    assert "4" not in found
    assert (found["3"].n, found["3"].method) == (2, "blocks")
    assert (found["6"].p, found["6"].method) == (1.0, "student")
    same = {str(way): {0: 1.0, 1: 2.0} for way in range(3)}
    assert [each.p for each in many_runs(same, "0").values()] == [1.0, 1.0]
    with pytest.raises(KeyError):
        many_runs(table, "gone")
