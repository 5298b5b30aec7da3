"""Endless numbered puzzles: number i is a function of the seed and i alone, so a stream can be entered anywhere.

A puzzle is drawn again until it is one that was asked for (its side of the split, its difficulty). That what was asked
for may not exist is noticed after `MAX_DRAWS` draws, instead of never.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

from tinydata.synthetic.chance import Chance

Puzzle = TypeVar("Puzzle")

MAX_DRAWS = 2000


class PuzzleError(ValueError):
    """A puzzle cannot be made or read as asked. One line, with what is wrong."""


def numbered(name: str, seed: int, start: int, draw: Callable[[Chance], Puzzle | None], asked: str) -> Iterator[Puzzle]:
    """Puzzle i for i = start, start + 1, ...; `draw` gives None for one that was not asked for.

    Raises PuzzleError for a negative start, and, while it is iterated, where MAX_DRAWS draws in a row were refused; `asked`
    says of what.
    """
    if start < 0:
        raise PuzzleError(f"{name}: start must not be negative, got {start}")

    def drawn(index: int) -> Puzzle:
        chance = Chance(f"{name} {index}", seed)
        for _ in range(MAX_DRAWS):
            puzzle = draw(chance)
            if puzzle is not None:
                return puzzle
        raise PuzzleError(f"{name}: none of {MAX_DRAWS} draws was {asked}: ask for less")

    return map(drawn, itertools.count(start))
