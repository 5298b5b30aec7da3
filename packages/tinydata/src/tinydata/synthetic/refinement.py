"""Refinement (Self-Refine, arXiv 2303.17651): a question, an attempt at it that went wrong, and a better answer.

    Question: Mia has 12 boxes of 7 apples and eats 4. How many are left?
    By hand:
    Multiply 12 by 7: 12*7=84
    Add 4 to 84: 84+4=88                    one step is wrong, and what follows from it
    Answer: 88
    Better:
    <think>...84-4=80</think>               what is learned
    Answer: 80

A share of the attempts is sound, so that a model that is shown a right answer learns to keep it: with none it would learn that
whatever it is shown is wrong. `refinement_check` reads the texts and shares nothing with what wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinydata.synthetic.arithmetic import MAX_STEPS
from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.exercise import Exercise, Form
from tinydata.synthetic.exercises import exercises


@dataclass(frozen=True, slots=True)
class Refinement:
    """problem: with the right steps; attempted: the same one with those of the attempt; form: in which both are written."""

    problem: Exercise
    attempted: Exercise
    form: Form

    @property
    def question(self) -> str:
        return self.problem.question

    @property
    def attempt(self) -> str:
        """What was answered first, with its tags."""
        return self.attempted.solution(self.form)

    @property
    def better(self) -> str:
        """What is learned."""
        return self.problem.solution(self.form)

    @property
    def flawed(self) -> bool:
        return self.attempted.answer != self.problem.answer

    @property
    def prompt(self) -> str:
        """What is asked: the question, the attempt without its tags, and to do better."""
        return self.problem.prompt_again(self.form, self.attempt)


def refinements(
    seed: int,
    count: int,
    form: Form = "hand",
    kinds: Sequence[str] = ("words",),
    language: Language = "english",
    steps: tuple[int, int] = (1, MAX_STEPS),
    sound: float = 0.25,
) -> Iterator[Refinement]:
    """The first `count` of `seed`, the same in every Python version; sound: the share of attempts that are right.

    Raises ValueError for another share, and as `exercises` does.
    """
    if not 0 <= sound <= 1:
        raise ValueError(f"refinements: sound {sound} is not within 0 and 1")
    chance = Chance(f"refinements {form}", seed)
    for exercise in exercises(seed, count, kinds, language, steps):
        attempted = exercise if chance.happens(sound) else exercise.flawed(chance)
        yield Refinement(exercise, attempted, form)
