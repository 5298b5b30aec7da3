"""How one of several candidates is taken: by votes, by a scorer, by running them, and by combinations of these.

A selector also says when the matter is settled, so that no more samples are paid for than can change the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tinyreason.answers import final_answer
from tinyreason.completion import Completion, Scorer
from tinyreason.test_time.voting import tally

Extract = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A completion, the answer in it (None: none), and its score where a scorer judged it."""

    completion: Completion
    answer: str | None
    score: float | None = None


class Selector(Protocol):
    """judge: the candidates of new completions. choose: the index of the best. decided: no `remaining` more can change it."""

    def judge(self, prompt: str, completions: list[Completion]) -> list[Candidate]: ...

    def choose(self, candidates: Sequence[Candidate]) -> int: ...

    def decided(self, candidates: Sequence[Candidate], remaining: int) -> bool: ...


@dataclass(frozen=True)
class Majority:
    """The answer that most candidates have. scorer: votes weigh what it gives, 0 to 1 (weighted majority, 2110.14168)."""

    scorer: Scorer | None = None
    extract: Extract = final_answer

    def judge(self, prompt: str, completions: list[Completion]) -> list[Candidate]:
        return _judged(prompt, completions, self.scorer, self.extract)

    def choose(self, candidates: Sequence[Candidate]) -> int:
        """Of the winning answer the candidate with the highest score, the first without scores; 0 where nobody answered."""
        groups = tally([candidate.answer for candidate in candidates], self._weights(candidates))
        return max(groups[0].voters, key=lambda index: (candidates[index].score or 0.0, -index)) if groups else 0

    def decided(self, candidates: Sequence[Candidate], remaining: int) -> bool:
        groups = tally([candidate.answer for candidate in candidates], self._weights(candidates))
        if not groups:
            return remaining == 0
        second = groups[1].weight if len(groups) > 1 else 0.0
        return groups[0].weight - second > remaining

    def _weights(self, candidates: Sequence[Candidate]) -> list[float] | None:
        """A vote weighs at most 1, or `decided` would not hold."""
        return None if self.scorer is None else [min(max(c.score or 0.0, 0.0), 1.0) for c in candidates]


@dataclass(frozen=True)
class Best:
    """The candidate that `scorer` thinks most of, among those with an answer. enough: a score that settles it at once."""

    scorer: Scorer
    enough: float | None = None
    extract: Extract = final_answer

    def judge(self, prompt: str, completions: list[Completion]) -> list[Candidate]:
        return _judged(prompt, completions, self.scorer, self.extract)

    def choose(self, candidates: Sequence[Candidate]) -> int:
        return max(range(len(candidates)), key=lambda index: (*_strength(candidates[index]), -index))

    def decided(self, candidates: Sequence[Candidate], remaining: int) -> bool:
        if remaining == 0:
            return True
        return self.enough is not None and any(
            c.answer is not None and (c.score or 0.0) >= self.enough for c in candidates
        )


@dataclass(frozen=True)
class Filtered:
    """Only candidates that `check` passes (score of at least 1/2) are left to `then`; all of them where it passes none.

    check: an execution verifier, for example: programs that ran. `then` judges what is left.
    """

    check: Scorer
    then: Selector

    def judge(self, prompt: str, completions: list[Completion]) -> list[Candidate]:
        passed = self.check.score(prompt, completions)
        candidates = self.then.judge(prompt, completions)
        return [
            candidate if score >= 0.5 else Candidate(candidate.completion, None, candidate.score)
            for candidate, score in zip(candidates, passed, strict=True)
        ]

    def choose(self, candidates: Sequence[Candidate]) -> int:
        return self.then.choose(candidates)

    def decided(self, candidates: Sequence[Candidate], remaining: int) -> bool:
        return self.then.decided(candidates, remaining)


def _judged(prompt: str, completions: list[Completion], scorer: Scorer | None, extract: Extract) -> list[Candidate]:
    answers = [extract(completion.text) if completion.finish != "error" else None for completion in completions]
    scores: Sequence[float | None] = [None] * len(answers) if scorer is None else scorer.score(prompt, completions)
    return [
        Candidate(completion, answer, score)
        for completion, answer, score in zip(completions, answers, scores, strict=True)
    ]


def _strength(candidate: Candidate) -> tuple[bool, float]:
    return candidate.answer is not None, candidate.score if candidate.score is not None else 0.0
