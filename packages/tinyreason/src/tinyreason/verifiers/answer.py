"""Verifiers that look at the answer alone: whether it is the right one, and whether it can be one at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from tinyreason.answers import Answers, Checker, final_answer, value
from tinyreason.completion import Completion
from tinyreason.units import UNITS


@dataclass(frozen=True)
class AnswerVerifier:
    """Scores 1 where the final answer equals that of `right` for the prompt, else 0: the oracle, for labels and bounds."""

    right: Mapping[str, str]
    checker: Checker = field(default_factory=Answers)

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        """Raises KeyError for a prompt whose answer is not known."""
        wanted = self.right[prompt]
        answers = [final_answer(completion.text) for completion in completions]
        return [float(answer is not None and self.checker.equal(answer, wanted)) for answer in answers]


@dataclass(frozen=True)
class PlausibleVerifier:
    """Scores 1 where the final answer is a number within `least` and `most`, whole where `whole`, of the kind of `unit` if it
    names a unit at all; else 0."""

    least: float | None = None
    most: float | None = None
    whole: bool = False
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit.casefold() not in UNITS:
            raise ValueError(f"unit {self.unit!r}: is not known")

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        return [float(self.plausible(final_answer(completion.text))) for completion in completions]

    def plausible(self, answer: str | None) -> bool:
        """Whether `answer` can be one. least and most are in `unit`, where there is one."""
        found = None if answer is None else value(answer)
        if found is None:
            return False
        number = found.number
        if self.unit is not None and found.unit:
            (base, factor), (kind, size) = UNITS[self.unit.casefold()], UNITS.get(found.unit, ("", 1))
            if kind != base:
                return False
            number *= size / factor
        if self.whole and number.denominator != 1:
            return False
        too_small = self.least is not None and number < Fraction(self.least)
        too_large = self.most is not None and number > Fraction(self.most)
        return not (too_small or too_large)
