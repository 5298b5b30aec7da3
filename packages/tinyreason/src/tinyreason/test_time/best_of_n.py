"""Best of N: several answers to one question, one of them taken (arXiv 2203.11171, 2110.14168, 2408.03314).

Samples come in rounds, and no further round is paid for once the selector says that nothing can change any more. A third
of the samples is drawn at each temperature, so that a round has some that are careful and some that are not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tinyreason.completion import Completion, Generator, Spent
from tinyreason.test_time.selectors import Candidate, Majority, Selector

TEMPERATURES = (0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Chosen:
    """What was taken: `candidates[index]`, its answer (None: nobody answered) and text; what it cost."""

    index: int
    candidates: tuple[Candidate, ...]
    spent: Spent

    @property
    def answer(self) -> str | None:
        return self.candidates[self.index].answer

    @property
    def text(self) -> str:
        return self.candidates[self.index].completion.text


def best_of_n(
    generator: Generator,
    prompt: str,
    n: int,
    selector: Selector | None = None,
    *,
    max_tokens: int = 256,
    temperatures: Sequence[float] = TEMPERATURES,
    stop: Sequence[str] = (),
    seed: int = 0,
    rounds: int = 1,
) -> Chosen:
    """One of `n` completions of `prompt`, by `selector` (default: majority). n = 1 takes the first temperature.

    rounds: in how many parts they are drawn; after each the selector may end it. Raises ValueError for n or rounds below
    1 and for no temperature. A generator that returns nothing leaves a candidate with finish "error" and no answer.
    """
    if n < 1 or rounds < 1:
        raise ValueError(f"best_of_n: takes at least one sample and one round, not {n} and {rounds}")
    if not temperatures:
        raise ValueError("best_of_n: takes at least one temperature")
    selector = Majority() if selector is None else selector
    began = time.perf_counter()
    candidates: list[Candidate] = []
    while len(candidates) < n:
        first = len(candidates)
        wanted = min(-(-n // rounds), n - first)
        completions = _drawn(generator, prompt, first, wanted, max_tokens, temperatures, stop, seed)
        candidates += selector.judge(prompt, completions)
        if selector.decided(candidates, n - len(candidates)):
            break
    paid = [candidate.completion for candidate in candidates]
    spent = Spent(
        tokens=sum(completion.tokens for completion in paid),
        generations=len(paid),
        calls=sum(len(completion.calls) for completion in paid),
        seconds=time.perf_counter() - began,
    )
    return Chosen(selector.choose(candidates), tuple(candidates), spent)


def _drawn(
    generator: Generator,
    prompt: str,
    first: int,
    count: int,
    max_tokens: int,
    temperatures: Sequence[float],
    stop: Sequence[str],
    seed: int,
) -> list[Completion]:
    """Samples `first` to `first + count` of the question, in their order: sample i at temperature i modulo their number."""
    found: dict[int, Completion] = {}
    for at, temperature in enumerate(temperatures):
        mine = [index for index in range(first, first + count) if index % len(temperatures) == at]
        if not mine:
            continue
        answers = generator.generate(
            [prompt], n=len(mine), max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed + 1000 * mine[0]
        )
        drawn = answers[0] if answers else []
        for place, index in enumerate(mine):
            found[index] = drawn[place] if place < len(drawn) else Completion("", finish="error")
    return [found[index] for index in sorted(found)]
