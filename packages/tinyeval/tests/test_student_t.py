"""Student's t is held to printed tables, to its closed forms for few degrees of freedom, and to its own inverse."""

import math

import pytest

from tinyeval import student_t

# percentage points of the t distribution, as printed in statistical tables (two-sided 10, 5, 1 and 0.1 %)
TABLE = {
    1: (6.314, 12.706, 63.657, 636.619),
    2: (2.920, 4.303, 9.925, 31.599),
    3: (2.353, 3.182, 5.841, 12.924),
    4: (2.132, 2.776, 4.604, 8.610),
    5: (2.015, 2.571, 4.032, 6.869),
    7: (1.895, 2.365, 3.499, 5.408),
    9: (1.833, 2.262, 3.250, 4.781),
    10: (1.812, 2.228, 3.169, 4.587),
    20: (1.725, 2.086, 2.845, 3.850),
    30: (1.697, 2.042, 2.750, 3.646),
    60: (1.671, 2.000, 2.660, 3.460),
    120: (1.658, 1.980, 2.617, 3.373),
}
PROBABILITIES = (0.95, 0.975, 0.995, 0.9995)


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_those_of_the_printed_tables(degrees: int) -> None:
    found = [student_t.quantile(probability, degrees) for probability in PROBABILITIES]
    assert found == pytest.approx(TABLE[degrees], abs=6e-4)


def test_many_degrees_are_the_normal_distribution() -> None:
    assert student_t.quantile(0.975, 1e7) == pytest.approx(1.959963985, abs=1e-6)
    assert student_t.tail(1.0, 1e7) == pytest.approx(0.158655254, abs=1e-6)


@pytest.mark.parametrize("t", [1e-9, 0.01, 0.3, 1.0, 2.5, 17.0, 1e4])
def test_tails_are_the_closed_forms_of_one_two_and_four_degrees(t: float) -> None:
    assert student_t.tail(t, 1) == pytest.approx(math.atan2(1, t) / math.pi, rel=1e-12)
    # 1/2 (1 - t / sqrt(2 + t^2)) and its like, multiplied out so that nothing cancels
    root = math.sqrt(2 + t * t)
    assert student_t.tail(t, 2) == pytest.approx(1 / (root * (root + t)), rel=1e-12)
    sine = t / math.sqrt(4 + t * t)
    assert student_t.tail(t, 4) == pytest.approx(0.5 - sine * (3 - sine**2) / 4, abs=1e-15)


@pytest.mark.parametrize("degrees", [0.5, 1, 2, 3, 8, 50, 999])
@pytest.mark.parametrize("probability", [1e-6, 0.025, 0.4, 0.5, 0.77, 0.975, 1 - 1e-9])
def test_a_quantile_has_its_tail(degrees: float, probability: float) -> None:
    t = student_t.quantile(probability, degrees)
    assert student_t.tail(t, degrees) == pytest.approx(1 - probability, rel=1e-9)
    assert student_t.tail(-t, degrees) == pytest.approx(probability, rel=1e-9)


def test_the_ends_are_exact() -> None:
    assert (student_t.tail(0.0, 3), student_t.tail(math.inf, 3), student_t.tail(-math.inf, 3)) == (0.5, 0.0, 1.0)
    assert student_t.quantile(0.5, 3) == pytest.approx(0.0, abs=1e-12)


def test_what_makes_no_sense_is_one_line() -> None:
    for degrees in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="degrees of freedom"):
            student_t.tail(1.0, degrees)
    for probability in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            student_t.quantile(probability, 3)


# percentage points of F, as printed in statistical tables (5 and 1 %)
FISHER = {(1, 1): (161.45, 4052.2), (1, 10): (4.965, 10.044), (2, 20): (3.493, 5.849), (5, 60): (2.368, 3.339)}


@pytest.mark.parametrize("degrees", FISHER)
def test_variances_differ_by_chance_as_the_printed_tables_say(degrees: tuple[int, int]) -> None:
    assert [student_t.fisher_tail(ratio, *degrees) for ratio in FISHER[degrees]] == pytest.approx(
        [0.05, 0.01], rel=2e-3
    )


def test_fisher_of_one_degree_is_students_square() -> None:
    assert student_t.fisher_tail(2.5**2, 1, 7) == pytest.approx(2 * student_t.tail(2.5, 7), rel=1e-12)
    assert student_t.fisher_tail(0.0, 2, 3) == 1.0
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_t.fisher_tail(1.0, 0, 3)
