"""The symmetries of Sudoku: random ones to multiply puzzles, and the canonical form that sees through all of them.

A symmetry relabels digits, permutes the bands (rows of boxes) and the rows within each, likewise the stacks and their
columns, and transposes where boxes are square. Puzzles that differ by one are the same puzzle in another dress. For
4x4, 6x6 (boxes of 2 x 3) and 9x9 they number 4! * 8^2 * 2, 6! * 48 * 72 and 9! * 1296^2 * 2.

**Canonical form.** The smallest grid, compared row by row, among all symmetric copies of a full grid. It is exact for
every size, 9x9 included, so two grids have the same form if and only if they are symmetric, and a split by that form
cannot leak. It needs no walk over all copies: choose which row comes first (of the grid or its transpose) and the order of
columns, 18 * 1296 ways for 9x9. The digits must then be those that make the first row 1 2 3 ...; and the smallest
order of the other rows is to sort each band by its first column, and the bands below the first by their first cell,
because the digits of a column are distinct.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from tinydata.puzzles.stream import PuzzleError
from tinydata.puzzles.sudoku_solver import Shape, shape_of
from tinydata.synthetic.chance import Chance


@dataclass(frozen=True, eq=False)
class Symmetry:
    """digits (S+1,): the new digit of each, 0 stays 0 (an empty cell). rows, columns (S,): where each line comes from.

    `transpose` happens first.
    """

    digits: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    transpose: bool

    def __call__(self, grid: np.ndarray) -> np.ndarray:
        """(S, S) -> (S, S), clues or solution."""
        turned = grid.T if self.transpose else grid
        return self.digits[turned[np.ix_(self.rows, self.columns)]]


def random_symmetry(shape: Shape, chance: Chance) -> Symmetry:
    """Each symmetry of `shape` with the same probability."""
    side = shape.side
    digits = np.array([0, *chance.distinct(range(1, side + 1), side)], dtype=np.int8)
    rows = _random_lines(shape.box_columns, shape.box_rows, chance)
    columns = _random_lines(shape.box_rows, shape.box_columns, chance)
    return Symmetry(digits, rows, columns, shape.box_rows == shape.box_columns and chance.happens(0.5))


def canonical_sudoku(solution: np.ndarray) -> np.ndarray:
    """(S, S) full grid -> (S, S) int8, the same for all its symmetric copies and for no other grid.

    Raises PuzzleError for a grid that is not full or breaks a rule.
    """
    shape = shape_of(solution)
    side, high = shape.side, shape.box_rows
    boxes = solution.reshape(-1, high, side // shape.box_columns, shape.box_columns).swapaxes(1, 2).reshape(side, side)
    if not all((np.sort(units) == np.arange(1, side + 1)).all() for units in (solution, solution.T, boxes)):
        raise PuzzleError("sudoku: every row, column and box of a full grid holds every digit once, here not")
    columns, places = _column_orders(shape)  # (A, S): the line of each place, and the place of each line
    powers = (side ** np.arange(side - 1, -1, -1)).astype(np.int64)
    best_key, best = None, []
    for grid in (solution, solution.T) if high == shape.box_columns else (solution,):
        for first in range(side):
            column_of = np.empty(side + 1, dtype=np.intp)
            column_of[grid[first]] = np.arange(side)
            for second in range(first // high * high, (first // high + 1) * high):
                if second == first:
                    continue
                # The digit at place j of the second row is called by its place in the first row.
                row = np.take_along_axis(places, column_of[grid[second]][columns], axis=1)  # (A, S)
                keys = row @ powers
                smallest = int(keys.min())
                if best_key is None or smallest < best_key:
                    best_key, best = smallest, []
                if smallest == best_key:
                    best += [(grid, first, columns[order]) for order in np.flatnonzero(keys == smallest)]
    forms = [_completed(grid, first, order, shape) for grid, first, order in best]
    return min(forms, key=lambda form: form.tobytes())


def _completed(grid: np.ndarray, first: int, columns: np.ndarray, shape: Shape) -> np.ndarray:
    """The smallest copy that begins with row `first` under this order of columns."""
    side, high = shape.side, shape.box_rows
    name = np.zeros(side + 1, dtype=np.int8)
    name[grid[first, columns]] = np.arange(1, side + 1)
    bands = name[grid[:, columns]].reshape(-1, high, side)
    bands = [band[np.argsort(band[:, 0])] for band in bands]
    # The first row begins with 1, the smallest digit of the first column, so its band sorts to the front.
    return np.concatenate(sorted(bands, key=lambda band: band[0, 0]))


@functools.cache
def _column_orders(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Every order of columns that keeps stacks together, (A, S), and its inverse."""
    high, wide = shape.box_rows, shape.box_columns
    inner = list(itertools.permutations(range(wide)))
    orders = [
        [stack * wide + column for stack, columns in zip(stacks, choice, strict=True) for column in columns]
        for stacks in itertools.permutations(range(high))
        for choice in itertools.product(inner, repeat=high)
    ]
    columns = np.array(orders, dtype=np.intp)
    return columns, np.argsort(columns, axis=1)


def _random_lines(groups: int, size: int, chance: Chance) -> np.ndarray:
    """An order of groups * size lines that keeps groups of `size` together."""
    order = chance.distinct(range(groups), groups)
    return np.array([group * size + line for group in order for line in chance.distinct(range(size), size)])
