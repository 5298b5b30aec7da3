"""Attempts to be improved: wrong by one step and what follows from it, and nothing else about them tells."""

from __future__ import annotations

import re

import pytest

from tinydata.synthetic.chance import Chance
from tinydata.synthetic.exercise import FORMS, Exercise, Step, without_tags
from tinydata.synthetic.exercises import exercises

PROBLEMS = list(exercises(1, 1500, ("words", "expression", "multiplication")))


def test_an_attempt_computes_rightly_and_answers_wrongly() -> None:
    chance = Chance("attempts", 0)
    for exercise in PROBLEMS:
        attempt = exercise.flawed(chance)
        assert (attempt.question, len(attempt.steps)) == (exercise.question, len(exercise.steps))
        assert attempt.answer != exercise.answer
        for step in attempt.steps:
            value = {"+": step.left + step.right, "-": step.left - step.right, "*": step.left * step.right}
            assert step.value == value.get(step.operator, step.left // max(step.right, 1))
            assert step.operator != "/" or step.left % step.right == 0
            assert step.value >= 0


def test_only_one_step_is_chosen_wrongly() -> None:
    """Written with names for what earlier steps found, an attempt differs from the solution in one line."""
    chance = Chance("attempts", 1)
    differing = 0
    for exercise in PROBLEMS:
        lines, wrong = (one.program().splitlines() for one in (exercise, exercise.flawed(chance)))
        differing += sum(a != b for a, b in zip(lines, wrong, strict=True)) == 1
    assert differing > 0.97 * len(PROBLEMS), "the rest has a number that happens to be what another step found"


def test_explanations_name_the_numbers_that_are_computed_with() -> None:
    chance = Chance("attempts", 2)
    for exercise in PROBLEMS:
        for before, after in zip(exercise.steps, exercise.flawed(chance).steps, strict=True):
            known = {str(before.left), str(before.right)} & set(re.findall(r"\d+", before.explanation))
            if len(known) == 2 and before.left != before.right:
                assert {str(after.left), str(after.right)} <= set(re.findall(r"\d+", after.explanation))


@pytest.mark.parametrize("form", FORMS)
def test_attempts_are_shown_without_tags(form: str) -> None:
    for exercise in PROBLEMS[:200]:
        prompt = exercise.prompt_again(form, exercise.solution(form))  # ty: ignore[invalid-argument-type]
        assert "<" not in prompt
        assert prompt.startswith(exercise.prompt(form))  # ty: ignore[invalid-argument-type]
        assert prompt.endswith(f"Answer: {exercise.answer}\nBetter:\n")


def test_tags_become_plain_text() -> None:
    assert without_tags("<think>a: <calc>1+1</calc><result>2</result></think>\nAnswer: 2") == "a: 1+1=2\nAnswer: 2"
    assert without_tags("<code>print(2)</code><result>2</result>\nAnswer: 2") == "print(2)\n2\nAnswer: 2"
    assert without_tags("2 < 3 and <calc>1") == "2 < 3 and 1"


def test_what_cannot_go_wrong_is_refused() -> None:
    nothing = Exercise("x", "?", (Step("", 0, "+", 0, 0), Step("", 5, "-", 5, 0)))
    chance = Chance("attempts", 3)
    for _ in range(50):
        assert nothing.flawed(chance).answer != "0"
