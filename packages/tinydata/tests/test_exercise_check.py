"""The checker of exercises: it accepts all that are generated, and says what is wrong with what was changed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from tinydata import preference_pairs
from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.exercise import FORMS, Exercise, Form
from tinydata.synthetic.exercise_check import exercise_fault
from tinydata.synthetic.exercises import KINDS, exercises

LANGUAGES: tuple[Language, ...] = ("english", "spanish")
BOXES = "There are 12 boxes with 7 apples in each. Ana takes 4 of the apples. How many apples are there now?"
BY_HAND = "<think>Multiply 12 by 7: 12*7=84\nTake 4 from 84: 84-4=80</think>\nAnswer: 80"
BY_PROGRAM = "<code>a = 12 * 7\nb = a - 4\nprint(b)</code><result>80</result>\nAnswer: 80"


@pytest.fixture(scope="module")
def made() -> list[Exercise]:
    return [one for language in LANGUAGES for one in exercises(17, 1500, KINDS, language)]


@pytest.mark.parametrize("form", FORMS)
def test_every_solution_is_accepted(made: list[Exercise], form: Form) -> None:
    faults = [exercise_fault(one.question, one.solution(form)) for one in made]
    assert [fault for fault in faults if fault is not None] == []


@pytest.mark.parametrize(
    ("question", "amount"),
    [
        ("What is 2 + 3 * 4?", 14),
        ("(40 - 4) / 6 = ?", 6),
        ("At first, Mia has 9 nuts. Then Mia puts 3 away. Tom gives 5 more to Mia. How many nuts does Mia have now?", 11),
        (BOXES, 80),
        ("Mia has 3 bags. Each one holds 8 eggs. They are shared equally by 4 children. How many eggs does each child get?", 6),
        ("The nuts cost 3 dollars each, and Mia buys 4 of them. Mia has 20 dollars. How many dollars are left?", 8),
        ("Mia has 5 nuts. Tom has 3 times as many. Tom has 4 more than Eva. How many nuts do Tom and Eva have together?", 26),
        ("Mia has 5 nuts. Tom has 3 times as many. How many nuts does Tom have?", 15),
        ("A train goes 60 kilometers an hour for 2 hours. How many kilometers are left if the way is 150 kilometers long?", 30),
        ("A rectangle is 5 meters by 7 meters. How many square meters is that?", 35),
        ("A rectangle is 5 meters by 7 meters. What is its perimeter in meters?", 24),
        ("A rectangle is 5 meters by 7 meters. It gets a fence for 3 dollars a meter. "
         "How many dollars is the whole fence?", 72),
        ("Mia tiene 9 libros. Mia vende 3. Tom le da 5 más a Mia. ¿Cuántos libros tiene Mia ahora?", 11),
        ("Mia compra 4 libros a 3 pesos por unidad. Mia paga con 20 pesos. ¿Cuántos pesos le devuelven?", 8),
        ("Un jardín mide 5 metros de largo y 7 metros de ancho. ¿Cuál es su área en metros cuadrados?", 35),
    ],
)  # fmt: skip
def test_questions_are_understood(question: str, amount: int) -> None:
    word = "Respuesta" if "¿" in question else "Answer"
    assert exercise_fault(question, f"{word}: {amount}") is None
    assert exercise_fault(question, f"{word}: {amount + 1}") == f"the answer is {amount}"


@pytest.mark.parametrize(
    ("question", "solution", "fault"),
    [
        (BOXES, BY_HAND, None),
        (BOXES, BY_PROGRAM, None),
        (BOXES, "80", "there is no answer"),
        (BOXES, BY_HAND.replace("Answer: 80", "Answer: 080"), "there is no answer"),
        (BOXES, BY_HAND.replace("12*7=84", "12*7=85"), "12*7 is not 85"),
        (BOXES, BY_HAND.replace("Take 4", "Take 5"), "explains another step"),
        (BOXES, BY_HAND.replace("84-4=80", "76+4=80"), "76+4 comes from nowhere"),
        (BOXES, BY_HAND.replace("\nTake 4 from 84: 84-4=80", ""), "the steps lead to another answer"),
        (BOXES, BY_HAND.replace("84-4=80", "I see"), "is no step"),
        (BOXES, BY_PROGRAM.replace("- 4", "- 5"), "5 comes from nowhere"),
        (BOXES, BY_PROGRAM.replace("a - 4", "a // 7"), "prints something else"),
        (BOXES, BY_PROGRAM.replace("a - 4", "a // 11"), "comes from nowhere"),
        (BOXES, BY_PROGRAM.replace("print(b)", "print(c)"), "the program prints nothing"),
        (BOXES, BY_PROGRAM.replace("b = a", "b = x"), "x is not defined"),
        (BOXES, BY_PROGRAM.replace("<code>", "<cod>"), "there are no steps"),
        (BOXES.replace("takes", "steals"), "Answer: 80", "is not understood"),
        (BOXES.split(" How")[0], "Answer: 80", "nothing is asked"),
        ("Mia has 5 nuts. How many nuts does Tom have?", "Answer: 5", "nobody says what Tom has"),
        ("What is 7 / 2?", "Answer: 3", "no whole number"),
        ("What is 7 +?", "Answer: 3", "cannot be read"),
    ],
)
def test_the_checker_says_what_is_wrong(question: str, solution: str, fault: str | None) -> None:
    found = exercise_fault(question, solution)
    assert (found is None) == (fault is None), found
    assert fault is None or fault in str(found)


def with_another(text: str, tokens: str, others: Callable[[str], list[str]], chance: random.Random) -> str:
    """`text` with one of its `tokens` replaced by one of the others."""
    found = chance.choice([*re.finditer(tokens, text)])
    return text[: found.start()] + chance.choice(others(found[0])) + text[found.end() :]


def digits(digit: str) -> list[str]:
    return [other for other in "0123456789" if other != digit]


def signs(sign: str) -> list[str]:
    return [other for other in ("+", "-", "*", "//" if sign == "//" else "/") if other != sign]


@pytest.mark.parametrize("form", FORMS)
def test_changed_solutions_are_rejected(made: list[Exercise], form: Form) -> None:
    chance = random.Random(form)
    tried = accepted = 0
    for one in made:
        solution = one.solution(form)
        changed = [with_another(solution, r"\d", digits, chance)]
        if form != "once":
            sign = r"(?<=\w )(?://|[-+*])(?= \w)" if form == "program" else r"(?<=\d)[-+*/](?=\d)"
            changed.append(with_another(solution, sign, signs, chance))
        tried += len(changed)
        accepted += sum(exercise_fault(one.question, text) is None for text in changed)
    assert tried >= 3000
    assert accepted <= 0.01 * tried


def test_changed_questions_have_other_answers(made: list[Exercise]) -> None:
    chance = random.Random(0)
    accepted = 0
    for one in made:
        question = with_another(one.question, r"(?<!\d)[1-9]", lambda digit: digits(digit)[1:], chance)
        accepted += exercise_fault(question, one.solution("hand")) is None
    assert accepted <= 0.01 * len(made)


def test_it_judges_preferences(made: list[Exercise]) -> None:
    def right(problem: Exercise, answer: str) -> bool:
        return exercise_fault(problem.question, answer) is None

    for form in FORMS:
        assert len(list(preference_pairs(made, form, 0, right))) == len(made)
