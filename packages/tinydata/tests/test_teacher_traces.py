"""Claim: calculations in a teacher's words are found and judged exactly, what is no calculation is left alone, and a text that
was made to be slow takes no time."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest

from tinydata.teachers import traces


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("12 * 7 = 84", ["exact"]),
        ("so 12*7=85.", ["wrong"]),
        ("$5 x 3 = $15, and 15 + 1 = 16!", ["exact", "exact"]),
        ("2 + 3 = 5 = 10 / 2", ["exact", "exact"]),
        ("2 + 3 = 5 + 1 = 6", ["wrong", "exact"]),
        ("84 = 12 * 7", ["exact"]),
        ("84 = 12 * 8", ["wrong"]),
        ("100 / 3 = 33.3", ["rounded"]),
        ("100 / 3 = 33.4", ["wrong"]),
        ("(2+3)*4 = 20 apples", ["exact"]),
        ("3 * (4 + 2) = 18", ["exact"]),
        ("5 \\times 3 = 15 and 6 \\div 2 = 3", ["exact", "exact"]),
        ("50 × 20% = 10", ["exact"]),
        ("1,234 + 1 = 1,235", ["exact"]),
        ("Step 1. 4 + 4 = 8", ["exact"]),
        ("n = 3 + 4 = 8", ["wrong"]),
        ("60 / 4 = 16 (minutes)", ["wrong"]),
        ("12 - -5 = 17", []),
        ("-3 + 5 = 2", ["exact"]),
        ("2 + 3 = 1/0", []),
        ("<<48/2=24>>24 clips", ["exact"]),
        ("<<48/2=25>>25 clips", ["wrong"]),
        ("<<a=b>>", ["unreadable"]),
        ("<calc>12*7</calc><result>84</result>", ["exact"]),
        ("<calc>12*7</calc><result>85</result>", ["wrong"]),
        ("<calc>12*7</calc>", ["unreadable"]),
        ("<calc>9**9**9</calc><result>1</result>", ["unreadable"]),
        ("x + 3 = 10", []),
        ("y - 3 + 2 = 10", []),
        ("2x = 10, f(3) + 1 = 8, v2 = 3 + 4, 4^2 + 1 = 17", []),
        ("3 apples + 2 = 5, 5 hours * 60 = 300, 20% of 50 = 10", []),
        ("12 + 3 = 15x and 5 = 5", []),
    ],
)
def test_calculations_are_found_and_judged(text: str, verdicts: list[str]) -> None:
    assert list(traces.steps(text)) == verdicts


def test_random_calculations_are_true_as_they_were_made_and_wrong_one_further() -> None:
    """The value is computed while the expression is written, by fractions."""
    draw = random.Random(0)

    def written(depth: int) -> tuple[str, Fraction]:
        if depth == 0:
            number = draw.randrange(1, 2000)
            return f"{number:,}" if draw.random() < 0.3 else str(number), Fraction(number)
        sign = draw.choice("+-*/")
        (left, a), (right, b) = written(depth - 1), written(0)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
        return f"({left}) {sign} {right}" if depth > 1 else f"{left} {sign} {right}", value

    exact = 0
    for _ in range(400):
        text, value = written(draw.randrange(1, 4))
        if value < 0:
            continue
        whole = value.denominator == 1
        said = str(value) if whole else f"{float(value):.3f}"
        for before, behind in (("", ""), ("So we get ", " apples."), ("1. $", ", and then"), ("Thus: ", " (in all)")):
            expected = "exact" if Fraction(said) == value else "rounded"
            more = str(value + 1) if whole else f"{float(said) + 1:.3f}"
            assert list(traces.steps(f"{before}{text} = {said}{behind}")) == [expected], text
            assert list(traces.steps(f"{before}{text} = {more}{behind}")) == ["wrong"], text
        exact += whole
    assert exact > 100


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a\n#### 72", "72"),
        ("#### 1\n#### 2", "2"),
        ("So the answer is: **3 apples**.", "3 apples"),
        ("</think>\nAnswer: 80", "80"),
        ("thus \\boxed{\\frac{1}{2}} holds", "\\frac{1}{2}"),
        ("Respuesta: 5", "5"),
        ("none", None),
        ("####", None),
        ("#### " + "9" * 200, None),
    ],
)
def test_answers_are_found(text: str, answer: str | None) -> None:
    assert traces.final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("<think><calc>1</calc></think>", False),
        ("<code>a < b</code>", False),
        ("<calc>1</calc>\n<result>1</result>", False),
        ("<code>1</code><result>1</result> <result>2</result>", True),
        ("<calc>1</calc> is <result>1</result>", True),
        ("<result>1</result>", True),
        ("<calc>1", True),
        ("1</calc>", True),
        ("<think></calc></think>", True),
        ("<calc><code></code></calc>", True),
        ("<think><think></think></think>", True),
    ],
)
def test_tags_are_balanced(text: str, bad: bool) -> None:
    assert traces.unbalanced(text) == bad


def test_hostile_texts_take_no_time() -> None:
    began = time.process_time()
    for piece in (
        "(",
        "1+",
        "1,",
        "1 = ",
        "<calc>",
        "-",
        "9" * 50,
        "<<1=",
        "\\boxed{",
        "1*(",
        "( 1 ) ",
        "<code>",
        "1+1=2 ",
    ):
        text = (piece * 5000)[:5000]
        list(traces.steps(text))
        traces.final_answer(text)
        traces.unbalanced(text)
    assert time.process_time() - began < 5
