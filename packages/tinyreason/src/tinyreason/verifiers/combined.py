"""Several scorers as one: what all of them say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinyreason.completion import Completion, Scorer


@dataclass(frozen=True)
class AllOf:
    """The product of the scores: one that says 0 rules a completion out, the others rank what is left."""

    scorers: Sequence[Scorer]

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        columns = [scorer.score(prompt, completions) for scorer in self.scorers]
        return [math.prod(column[index] for column in columns) for index in range(len(completions))]
