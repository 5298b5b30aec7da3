"""Preference pairs: a reader of this file accepts the chosen answer and not the rejected one; answers alone are learned."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

from tinydata import (
    Document,
    PreferencePair,
    ProblemLoader,
    encode_preferences,
    preference_pairs,
    train_tokenizer,
)
from tinydata.arithmetic_expression import evaluate
from tinydata.synthetic.exercise import FORMS, Exercise, Step
from tinydata.synthetic.exercises import exercises
from tinydata.synthetic.logic import LogicProblem, logic
from tinydata.synthetic.logic_check import logic_fault

EXPRESSIONS = list(exercises(4, 600, ("expression", "multiplication")))


def right(problem: Exercise, answer: str) -> bool:
    """Whether the answer is the value of the expression that the question has."""
    asked = re.search(r"[\d(][\d +*/()-]*[\d)]", problem.question)
    assert asked is not None
    said = re.fullmatch(r"(?:.*\n)*Answer: (\d+)", answer)
    return said is not None and Fraction(said[1]) == evaluate(asked[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_chosen_answer_alone_is_right(form: str) -> None:
    pairs = list(preference_pairs(EXPRESSIONS, form, 0, right))
    assert len(pairs) == len(EXPRESSIONS)
    for problem, pair in zip(EXPRESSIONS, pairs, strict=True):
        assert pair.prompt == problem.prompt(form)  # ty: ignore[invalid-argument-type]
        assert pair.chosen == problem.solution(form)  # ty: ignore[invalid-argument-type]
        assert right(problem, pair.chosen)
        assert not right(problem, pair.rejected)
        assert pair.rejected.count("\n") == pair.chosen.count("\n"), "nothing about its form tells"
    assert pairs == list(preference_pairs(EXPRESSIONS, form, 0, right))
    assert pairs != list(preference_pairs(EXPRESSIONS, form, 1, right))


@pytest.mark.parametrize("form", ["once", "hand"])
def test_logic_chains_make_pairs_too(form: str) -> None:
    def sound(problem: LogicProblem, answer: str) -> bool:
        return logic_fault(problem.question, answer) is None

    problems = [*logic(0, 300), *logic(0, 300, language="spanish")]
    pairs = list(preference_pairs(problems, form, 0, sound))
    assert len(pairs) == 600
    assert all(pair.chosen != pair.rejected for pair in pairs)


def test_a_verifier_that_disagrees_stops_it() -> None:
    with pytest.raises(ValueError, match="preference 0: the verifier refuses what is to be chosen"):
        next(preference_pairs(EXPRESSIONS, "hand", 0, lambda problem, answer: False))
    with pytest.raises(ValueError, match="preference 0: the verifier accepts what is to be rejected"):
        next(preference_pairs(EXPRESSIONS, "hand", 0, lambda problem, answer: True))
    with pytest.raises(ValueError, match="are the same"):
        PreferencePair("?", "yes", "yes")
    with pytest.raises(ValueError, match="is empty"):
        PreferencePair("?", "yes", "")


def test_both_rows_have_one_prompt_and_learn_their_answers_without_results() -> None:
    step = (Step("Multiply", 6, "*", 7, 42),)
    problem = Exercise("any", "6 * 7 <result>?", step)
    tokenizer = train_tokenizer([Document(problem.question * 3, "x")], 280)
    pairs = list(preference_pairs([problem], "calculator", 0, right))
    (encoded,) = encode_preferences(pairs, tokenizer)
    assert encoded.chosen.prompt == encoded.rejected.prompt
    prompt = encoded.chosen.prompt
    assert np.array_equal(encoded.chosen.ids[:prompt], encoded.rejected.ids[:prompt])
    assert tokenizer.special["<result>"] not in encoded.chosen.ids[:prompt]
    rows = [encoded.chosen, encoded.rejected]
    length = max(len(row.ids) for row in rows)
    (batch,) = ProblemLoader(rows, tokenizer, length, 2).epoch_batches()
    for row, answer in enumerate((pairs[0].chosen, pairs[0].rejected)):
        learned = tokenizer.decode(batch.targets[row][batch.targets[row] != -100].tolist())
        assert learned == re.sub(r"<result>\d+</result>", "", answer) + "<|endoftext|>"
        assert "<result>" in answer
