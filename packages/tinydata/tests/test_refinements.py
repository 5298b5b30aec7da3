"""Claim: of a refinement the attempt is flawed or sound as it says, and the better answer is right, for a check that reads the
texts alone; attempts as better answers and wrong better answers are refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from tinydata.synthetic.chance import Chance
from tinydata.synthetic.exercise import FORMS
from tinydata.synthetic.refinement import refinements
from tinydata.synthetic.refinement_check import attempt_is, refinement_fault

SETTINGS = [(form, language) for form in FORMS for language in ("english", "spanish")]


@pytest.mark.parametrize(("form", "language"), SETTINGS)
def test_all_verify(form: Any, language: Any) -> None:
    made = list(refinements(3, 400, form, ("words", "expression"), language))
    assert [fault for one in made if (fault := refinement_fault(one.prompt, one.better))] == []
    assert [attempt_is(one.prompt) for one in made] == ["flawed" if one.flawed else "sound" for one in made]
    assert 0.6 < sum(one.flawed for one in made) / len(made) < 0.9
    assert all(one.question in one.prompt and one.better not in one.prompt for one in made if form != "once")


@pytest.mark.parametrize(("form", "language"), SETTINGS)
def test_what_is_no_better_is_refused(form: Any, language: Any) -> None:
    made = list(refinements(4, 300, form, language=language, sound=0))
    chance = Chance("other flaws", 0)
    assert all(one.flawed for one in made)
    for one in made:
        assert refinement_fault(one.prompt, one.attempt) is not None, "the attempt itself"
        assert refinement_fault(one.prompt, one.problem.flawed(chance).solution(form)) is not None
        other = "program" if form != "program" else "hand"
        assert refinement_fault(one.prompt, one.problem.solution(other)) == "the form is another one"
        assert refinement_fault(one.prompt.replace(one.question, "?"), one.better) is not None
        assert refinement_fault(one.problem.prompt(form), one.better) == "nothing is asked for"


def test_a_smaller_count_is_the_beginning_and_the_share_is_kept() -> None:
    assert list(refinements(0, 50)) == list(refinements(0, 200))[:50]
    assert sum(one.flawed for one in refinements(0, 1000, sound=0.5)) / 1000 == pytest.approx(0.5, abs=0.05)
    assert not any(one.flawed for one in refinements(0, 100, sound=1))
    with pytest.raises(ValueError, match=r"sound 1.5 is not within 0 and 1"):
        next(refinements(0, 1, sound=1.5))
