"""Rounds of refinement in bulk: what is right at first, and after each round, with a judge that may keep the old answer.

`tinyreason.refine` does the same for one question; here all questions of a round are decoded together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from apps.common.generator import ModelGenerator
from apps.common.value_scorer import ValueScorer
from tinydata.synthetic.exercise import Exercise, Form
from tinyreason import Answers, final_answer


class Round(NamedTuple):
    """After so many rounds: problems that are right, newly right and newly wrong against the round before."""

    right: int
    mended: int
    spoilt: int


def rounds(
    generator: ModelGenerator,
    problems: Sequence[Exercise],
    form: Form,
    count: int,
    max_tokens: int,
    judge: ValueScorer | None = None,
    temperature: float = 0.0,
) -> list[Round]:
    """Round 0 is the first attempt. judge: an answer is taken only if it scores higher than the one before; without one every
    new answer is taken."""
    asked = [problem.prompt(form) for problem in problems]
    texts = [row[0].text for row in generator.generate(asked, n=1, max_tokens=max_tokens, temperature=temperature)]
    scores = _scores(judge, asked, texts)
    right = _right(problems, texts)
    found = [Round(sum(right), 0, 0)]
    for number in range(1, count + 1):
        again = [problem.prompt_again(form, text) for problem, text in zip(problems, texts, strict=True)]
        answers = generator.generate(again, n=1, max_tokens=max_tokens, temperature=temperature, seed=number)
        # an attempt that leaves no room for another answer in the context stays as it is
        new = [row[0].text or old for row, old in zip(answers, texts, strict=True)]
        judged = _scores(judge, asked, new)
        better = [judge is None or after > before for before, after in zip(scores, judged, strict=True)]
        texts = [fresh if taken else old for fresh, old, taken in zip(new, texts, better, strict=True)]
        scores = [after if taken else before for before, after, taken in zip(scores, judged, better, strict=True)]
        now = _right(problems, texts)
        mended = sum(after and not before for before, after in zip(right, now, strict=True))
        spoilt = sum(before and not after for before, after in zip(right, now, strict=True))
        found.append(Round(sum(now), mended, spoilt))
        right = now
    return found


def _scores(judge: ValueScorer | None, asked: Sequence[str], texts: Sequence[str]) -> list[float]:
    return [0.0] * len(texts) if judge is None else judge.score_all(list(zip(asked, texts, strict=True)))


def _right(problems: Sequence[Exercise], texts: Sequence[str]) -> list[bool]:
    answers = [final_answer(text) for text in texts]
    return [
        answer is not None and Answers().equal(answer, problem.answer)
        for answer, problem in zip(answers, problems, strict=True)
    ]
