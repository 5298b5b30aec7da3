"""Answers: equal by value, found in worked solutions, whatever a model writes."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyreason import Answers, final_answer
from tinyreason.answers import value

SAME = [
    ("309,524", "309524"), ("3.09524e5", "309,524"), ("$309,524", "309524.00"), ("1/2", "0.5"), ("50%", "0.5"),
    ("50 percent", "1/2"), ("1 1/2", "1.5"), ("-3", "- 3"), ("-$5", "$-5"), ("5 km", "5,000 m"), ("90 minutes", "1.5 hours"),
    ("18 apples", "18"), ("18 apples", "18 apple"), ("12 cups", "12"), ("Tuesday.", "tuesday"), ("(B)", "b"),
    ("\\frac{1}{2}", "0.5"), ("$\\frac{3}{4}$", "3/4"), ("\\boxed{72}", "72"), ("x = 5", "5"), ("3 * 4", "12"),
    ("2^10", "1024"), (".5", "0.5"), ("5.", "5"), ("\u22127", "-7"), ("1 gallon", "231 * 0.0163870640 "),
    ("12 inches", "1 foot"), ("1{,}000", "1000"), ("50\\%", "0.5"),
]  # fmt: skip
DIFFERENT = [
    ("309524", "309525"), ("5 km", "5 m"), ("18 apples", "18 pears"), ("50%", "50"), ("1/3", "0.33"), ("5 km", "5 kg"),
    ("Tuesday", "Wednesday"), ("", "0"), ("", ""), ("1e999", "1e998"), ("1/0", "0"), ("5", "five"), ("1,2", "12"),
    ("[]", "()"), ("3 apples", "three"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), [pair for pair in SAME if "0.016387" not in pair[1]])
def test_equal_answers(a: str, b: str) -> None:
    assert Answers().equal(a, b)
    assert Answers().equal(b, a)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_answers(a: str, b: str) -> None:
    assert not Answers().equal(a, b)
    assert not Answers().equal(b, a)


def test_tolerance_is_relative_and_none_by_default() -> None:
    assert not Answers().equal("0.333", "1/3")
    assert Answers(tolerance=0.01).equal("0.333", "1/3")
    assert not Answers(tolerance=0.0001).equal("0.333", "1/3")
    assert Answers(tolerance=0.01).equal("0", "0")


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.fractions(max_denominator=999).map(lambda f: f % 10**9))
def test_a_fraction_equals_itself_however_written(number: Fraction) -> None:
    texts = [str(number), f"{number.numerator}/{number.denominator}"]
    if number.denominator == 1:
        texts += [f"{number.numerator:,}", f"${number.numerator:,}.00", f"{number.numerator}.0"]
    for text in texts:
        found = value(text)
        assert found is not None
        assert found.number == number


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_may_be_compared(a: str, b: str) -> None:
    assert Answers().equal(a, b) == Answers().equal(b, a)
    if value(a) is not None:
        assert Answers().equal(a, a)


@pytest.mark.parametrize(
    "text", ["9" * 100_000, "9**9**9**9", "1/" * 300, "(" * 500, "1e" + "9" * 400, "\\frac{" * 100, "1 " * 10_000]
)
def test_hostile_answers_cost_nothing(text: str) -> None:
    began = time.perf_counter()
    Answers().equal(text, "1")
    final_answer(text)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 48/2 = 24\n#### 24", "24"),
        ("<think>1+1</think>\nAnswer: 2", "2"),
        ("The answer is 12 apples.", "12 apples"),
        ("Answer: 3\nno, wait.\nAnswer: 4\nmore", "4"),
        ("thus \\boxed{\\frac{1}{2}} holds", "\\frac{1}{2}"),
        ("Respuesta: 7", "7"),
        ("answering the question", None),
        ("I think 5", None),
        ("", None),
        ("Answer:", None),
        ("Final answer: **8**", "8"),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_the_last_number_where_it_is_asked_for() -> None:
    assert final_answer("3 and then $1,250.50 of them", last_number=True) == "$1,250.50"
    assert final_answer("none", last_number=True) is None


def test_latex_is_asked_for_what_is_not_plain() -> None:
    asked: list[tuple[str, str]] = []

    def equal(a: str, b: str) -> bool:
        asked.append((a, b))
        return True

    assert Answers(latex=equal).equal("\\sqrt{4}", "\\sqrt[2]{4}")
    assert asked == [("\\sqrt{4}", "\\sqrt[2]{4}")]
    assert not Answers(latex=equal).equal("Monday", "Friday")
