"""Does a text go round in circles? Counted on words as they stand between spaces, or on any tokens.

distinct-n    different n-grams over all n-grams (Li et al., arXiv 1510.03055): 1 where none comes twice
rep-n         1 - distinct-n of one text (Welleck et al., arXiv 1908.04319)
loop          a stretch of `period` tokens said `times` times in a row, at least three times and six tokens in all
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOOP_TIMES = 3  # said twice is emphasis
LOOP_TOKENS = 6  # "very very very" is no loop
MAX_PERIOD = 64


@dataclass(frozen=True)
class Repetition:
    """Of texts: distinct 1- to 4-grams over all texts together, the mean of rep-4 within each, and the share with a loop."""

    texts: int
    distinct: tuple[float, float, float, float]
    repeated_4: float
    looping: float


def distinct_n(texts: Iterable[Sequence[object]], n: int) -> float:
    """Different n-grams over all n-grams of token sequences, none across two of them; NaN where there is none.

    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"distinct_n: n must be at least 1, not {n}")
    seen: set[tuple[object, ...]] = set()
    total = 0
    for tokens in texts:
        for at in range(len(tokens) - n + 1):
            seen.add(tuple(tokens[at : at + n]))
            total += 1
    return len(seen) / total if total else math.nan


def longest_loop(tokens: Sequence[object], max_period: int = MAX_PERIOD) -> tuple[int, int]:
    """(period, times) of the longest stretch that repeats itself at once, by tokens covered; (0, 0) where there is none.

    Of stretches of the same length the shortest period is named. A last, unfinished round does not count.
    """
    best, covered = (0, 0), 0
    for period in range(1, min(max_period, len(tokens) // LOOP_TIMES) + 1):
        run = 0  # tokens in a row that equal the one a period before
        for at in range(period, len(tokens)):
            run = run + 1 if tokens[at] == tokens[at - period] else 0
            times = 1 + run // period
            if times >= LOOP_TIMES and period * times >= LOOP_TOKENS and period * times > covered:
                best, covered = (period, times), period * times
    return best


def repetition(texts: Iterable[str]) -> Repetition:
    """Of texts that a model wrote, on words between spaces. Raises ValueError for no text."""
    cut = [text.split() for text in texts]
    if not cut:
        raise ValueError("repetition needs at least one text")
    one, two, three, four = (distinct_n(cut, n) for n in (1, 2, 3, 4))
    repeated = [0.0 if len(tokens) < 4 else 1 - distinct_n([tokens], 4) for tokens in cut]
    looping = sum(longest_loop(tokens) != (0, 0) for tokens in cut) / len(cut)
    return Repetition(len(cut), (one, two, three, four), math.fsum(repeated) / len(cut), looping)
