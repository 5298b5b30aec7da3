"""Sudoku of 4x4, 6x6 (boxes of 2 rows and 3 columns) and 9x9 cells, each with exactly one solution.

A full grid is found by the solver with digits tried in random order and sent through a random symmetry. Then clues are
taken away, cell by cell in random order, wherever the solution stays the only one: a clue stays if there is a solution
with another digit in its place. Cells need to be visited once only, for a clue that is needed stays needed when others go;
what is left at the end is minimal. Every grid can come up; within a class of symmetric grids all are equally likely,
between classes they are not.

The split is by the canonical form of the solution (`sudoku_symmetry`), so no solution of one side is a solution of
another in any dress. There are 2 classes of 4x4 grids, 49 of 6x6 and 5,472,730,538 of 9x9: 4x4 has no third side, and
shares of 6x6 are coarse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import get_args

import numpy as np

from tinydata.documents import Split, split_of
from tinydata.puzzles.stream import PuzzleError, numbered
from tinydata.puzzles.sudoku_solver import SHAPES, Shape, search, shape_of
from tinydata.puzzles.sudoku_symmetry import Symmetry, canonical_sudoku, random_symmetry
from tinydata.synthetic.chance import Chance

# Of endless puzzles a large share costs nothing. The classes of 4x4 grids lie at .115 (96 grids) and .472 (192).
DEFAULT_FRACTIONS: Mapping[int, Mapping[str, float]] = MappingProxyType(
    {4: {"test": 0.25}, 6: {"validation": 0.2, "test": 0.2}, 9: {"validation": 0.1, "test": 0.1}}
)


@dataclass(frozen=True, eq=False)
class Sudoku:
    """clues (S, S) int8: 1..S, 0 where empty. solution (S, S) int8: 1..S, the only one. guesses: its difficulty.

    `guesses` counts the branches of the exact solver (`sudoku_solver`); a symmetric copy keeps the number of the original.
    """

    shape: Shape
    clues: np.ndarray
    solution: np.ndarray
    guesses: int

    def transformed(self, symmetry: Symmetry) -> Sudoku:
        """The same puzzle in another dress."""
        return replace(self, clues=symmetry(self.clues), solution=symmetry(self.solution))

    def __str__(self) -> str:
        return "\n".join("".join(str(digit) if digit else "." for digit in row) for row in self.clues.tolist())


def sudoku(
    side: int = 9,
    *,
    seed: int = 0,
    split: Split | None = None,
    fractions: Mapping[str, float] | None = None,
    clues: int | None = None,
    min_guesses: int = 0,
    max_guesses: int | None = None,
    start: int = 0,
) -> Iterator[Sudoku]:
    """Endless puzzles with `side` 4, 6 or 9; number i depends on the arguments, the seed and i alone, from `start` on.

    split: only puzzles whose solution lies on this side; `fractions` are the shares of "validation" and "test", by
    default `DEFAULT_FRACTIONS`. clues: stop taking clues away when so many are left (a puzzle in which none can be
    spared earlier keeps more); None takes away all that can be spared. min_guesses, max_guesses: the difficulty wanted.
    Raises PuzzleError for a request that cannot be met, ValueError for fractions that `split_of` refuses.
    """
    if side not in SHAPES:
        raise PuzzleError(f"sudoku: side must be one of {', '.join(map(str, SHAPES))}, got {side}")
    if split is not None and split not in get_args(Split):
        raise PuzzleError(f"sudoku: split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if clues is not None and not 0 <= clues <= side * side:
        raise PuzzleError(f"sudoku: clues must be 0 to {side * side}, got {clues}")
    shape = SHAPES[side]
    shares = DEFAULT_FRACTIONS[side] if fractions is None else fractions

    def draw(chance: Chance) -> Sudoku | None:
        solution = _full_grid(shape, chance)
        if split is not None and side_of(solution, shares) != split:
            return None
        given = _spared(solution, shape, clues or 0, chance)
        guesses = search(shape.masks(given.ravel().tolist()), shape).guesses
        if guesses < min_guesses or (max_guesses is not None and guesses > max_guesses):
            return None
        return Sudoku(shape, given, solution, guesses)

    asked = f"{split or 'on any side'} with {min_guesses} to {'any' if max_guesses is None else max_guesses} guesses"
    asked += " (4x4 has 2 classes of grids to split, 6x6 has 49)" if split else ""
    return numbered(f"sudoku {side}x{side}", seed, start, draw, asked)


def sudoku_copies(puzzle: Sudoku, seed: int = 0) -> Iterator[Sudoku]:
    """Endless random symmetric copies of `puzzle`, all of the same difficulty and on the same side of every split."""
    chance = Chance("sudoku symmetries", seed)
    while True:
        yield puzzle.transformed(random_symmetry(puzzle.shape, chance))


def side_of(solution: np.ndarray, fractions: Mapping[str, float]) -> Split:
    """The side of a full grid and all its symmetric copies: `split_of` its canonical form, written out."""
    shape = shape_of(solution)
    form = "".join(map(str, canonical_sudoku(solution).ravel().tolist()))
    return split_of(f"sudoku {shape.box_rows}x{shape.box_columns} {form}", fractions)


def _full_grid(shape: Shape, chance: Chance) -> np.ndarray:
    empty = [shape.every_digit] * shape.side**2
    digits = search(empty, shape, limit=1, chance=chance).solutions[0]
    grid = np.array(digits, dtype=np.int8).reshape(shape.side, shape.side)
    return random_symmetry(shape, chance)(grid)


def _spared(solution: np.ndarray, shape: Shape, fewest: int, chance: Chance) -> np.ndarray:
    """The clues that are left when as many as possible, but not below `fewest`, have been taken away."""
    digits = solution.ravel().tolist()
    masks = shape.masks(digits)
    left = len(masks)
    for cell in chance.distinct(range(len(masks)), len(masks)):
        if left <= fewest:
            break
        clue = masks[cell]
        masks[cell] = shape.every_digit ^ clue
        needed = search(masks, shape, limit=1).solutions
        masks[cell] = clue if needed else shape.every_digit
        left -= not needed
    given = [digit if mask == 1 << digit - 1 else 0 for digit, mask in zip(digits, masks, strict=True)]
    return np.array(given, dtype=np.int8).reshape(solution.shape)
