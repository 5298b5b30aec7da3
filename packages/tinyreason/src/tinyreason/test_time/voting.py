"""Votes over answers (self-consistency, arXiv 2203.11171): equal answers are one, and the heaviest wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyreason.answers import Answers, Checker


@dataclass
class Group:
    """Equal answers: as the first of them was written, who gave them (indices), and what they weigh together."""

    answer: str
    weight: float = 0.0
    voters: list[int] = field(default_factory=list)


def tally(
    answers: Sequence[str | None], weights: Sequence[float] | None = None, checker: Checker | None = None
) -> list[Group]:
    """The answers by falling weight, the earlier first among equals; None (no answer) is no vote.

    weights: of each vote, 1 by default. An answer joins the first group whose answer equals it.
    Raises ValueError for weights that are negative or of another number.
    """
    checker = Answers() if checker is None else checker
    weights = [1.0] * len(answers) if weights is None else list(weights)
    if len(weights) != len(answers):
        raise ValueError(f"weights: {len(weights)} for {len(answers)} answers")
    if any(not weight >= 0 for weight in weights):
        raise ValueError("weights: a vote cannot weigh less than nothing")
    groups: list[Group] = []
    for voter, (answer, weight) in enumerate(zip(answers, weights, strict=True)):
        if answer is None or not answer.strip():
            continue
        group = next((group for group in groups if checker.equal(group.answer, answer)), None)
        if group is None:
            group = Group(answer)
            groups.append(group)
        group.weight += weight
        group.voters.append(voter)
    return sorted(groups, key=lambda group: -group.weight)


def majority_vote(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """The answer of the heaviest group; None where nobody answered."""
    groups = tally(answers, weights)
    return groups[0].answer if groups else None
