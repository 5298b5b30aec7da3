"""Refinement (Self-Refine, arXiv 2303.17651): a better answer to the same question, with the last attempt in view.

Each round shows the question and the best attempt so far and asks again. What comes is kept only if the scorer thinks more
of it, so that by the scorer's own measure no round makes an answer worse; zero rounds are the first attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinyreason.completion import Completion, Generator, Scorer, Spent
from tinyreason.test_time.one import one

Again = Callable[[str, str], str]


@dataclass(frozen=True)
class Refined:
    """The best attempt and its score; all attempts in order, with their scores; which was kept; what it cost."""

    best: Completion
    score: float
    attempts: tuple[tuple[Completion, float], ...]
    kept: int
    spent: Spent


def refine(
    generator: Generator,
    scorer: Scorer,
    prompt: str,
    again: Again,
    rounds: int = 1,
    *,
    max_tokens: int = 256,
    temperature: float = 0.7,
    stop: Sequence[str] = (),
    seed: int = 0,
    enough: float = 1.0,
) -> Refined:
    """The best of 1 + `rounds` attempts. again(prompt, attempt): what is asked after an attempt.

    enough: a score that ends it. Raises ValueError for a negative number of rounds.
    """
    if rounds < 0:
        raise ValueError(f"refine: {rounds} rounds")
    began = time.perf_counter()
    attempts: list[tuple[Completion, float]] = []
    kept = 0
    for number in range(rounds + 1):
        asked = prompt if number == 0 else again(prompt, attempts[kept][0].text)
        attempt = one(generator, asked, max_tokens, stop=stop, temperature=temperature, seed=seed + number)
        attempts.append((attempt, scorer.score(prompt, [attempt])[0]))
        if attempts[number][1] > attempts[kept][1]:
            kept = number
        if attempts[kept][1] >= enough:
            break
    paid = [attempt for attempt, _ in attempts]
    spent = Spent(
        sum(attempt.tokens for attempt in paid),
        len(paid),
        sum(len(attempt.calls) for attempt in paid),
        time.perf_counter() - began,
    )
    return Refined(attempts[kept][0], attempts[kept][1], tuple(attempts), kept, spent)
