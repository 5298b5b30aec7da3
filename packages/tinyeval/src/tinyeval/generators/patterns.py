"""A rule shown on three rows of letters, to be applied to a fourth: abstraction at its smallest, in one dimension.

    k t a -> a t k
    s b m c -> c m b s
    f h y -> y h f
    q d x ->                 answer: x d q          (after ARC, arXiv 1911.01547; in one dimension as in 1D-ARC, 2305.18354)

Letters of a row differ from one another, so that no two rules agree by accident of equal letters.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from tinyeval.items import Item

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHOWN = 3
Row = Sequence[str]

RULES: Mapping[str, Callable[[Row], list[str]]] = MappingProxyType(
    {
        "reverse": lambda row: [*reversed(row)],
        "first": lambda row: [row[0]],
        "last": lambda row: [row[-1]],
        "without first": lambda row: [*row[1:]],
        "without last": lambda row: [*row[:-1]],
        "turn left": lambda row: [*row[1:], row[0]],
        "turn right": lambda row: [row[-1], *row[:-1]],
        "swap ends": lambda row: [row[-1], *row[1:-1], row[0]],
        "double": lambda row: [letter for letter in row for _ in range(2)],
        "repeat": lambda row: [*row, *row],
        "first to all": lambda row: [row[0]] * len(row),
        "last again": lambda row: [*row, row[-1]],
    }
)


def patterns(*, seed: int, items: int, lengths: Sequence[int] = (3, 4, 5)) -> Iterator[Item]:
    """Items of each rule in turn, of rows of ``lengths`` letters; meta: rule. Raises ValueError for a length outside 3 to 8."""
    if not lengths or not all(3 <= length <= 8 for length in lengths):
        raise ValueError(f"patterns: lengths {list(lengths)} are not within 3 to 8")
    chance = random.Random(f"patterns {seed}")
    for number, (name, rule) in enumerate(itertools.islice(itertools.cycle(RULES.items()), items)):
        rows = [chance.sample(LETTERS, chance.choice(list(lengths))) for _ in range(SHOWN + 1)]
        lines = [f"{' '.join(row)} -> {' '.join(rule(row))}" for row in rows[:SHOWN]]
        prompt = "\n".join([*lines, f"{' '.join(rows[-1])} ->"])
        yield Item(str(number), prompt, answer=" ".join(rule(rows[-1])), meta={"rule": name})
