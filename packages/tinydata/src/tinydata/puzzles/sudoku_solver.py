"""An exact Sudoku solver: bitmasks of candidates, singles, and a guess at the most constrained cell.

A cell is the set of digits that it may still hold, as a bitmask (bit d - 1 for digit d). Propagation applies two rules
until neither says anything: a cell with one candidate takes it from its row, column and box (naked single), and a digit
with one place left in a unit goes there (hidden single). Both only draw conclusions, so the order in which they are
applied does not matter. Where they stop, the search guesses at a cell with the fewest candidates (the first of them in
reading order) and tries each in turn.

**Difficulty** is `Search.guesses`: how often the search had to branch before every possibility was settled, that is,
before the solution was found and proven to be the only one. 0 means that singles alone solve the puzzle, which is true
of all its symmetric copies or of none. Above 0 the number depends a little on which of several equally constrained cells
comes first, so symmetric copies may differ; the ratings of Sudoku-Extreme, backtracks of another solver, are of this
kind too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tinydata.puzzles.stream import PuzzleError
from tinydata.synthetic.chance import Chance


@dataclass(frozen=True, slots=True)
class Shape:
    """A grid of S x S cells made of boxes of `box_rows` x `box_columns` cells, S = box_rows * box_columns."""

    box_rows: int
    box_columns: int

    @property
    def side(self) -> int:
        """S: rows, columns, digits."""
        return self.box_rows * self.box_columns

    @property
    def every_digit(self) -> int:
        """The bitmask of a cell of which nothing is known."""
        return (1 << self.side) - 1

    def masks(self, digits: Sequence[int]) -> list[int]:
        """S*S digits in reading order, 0 for an empty cell -> the bitmask of each cell."""
        return [1 << digit - 1 if digit else self.every_digit for digit in digits]


SHAPES: Mapping[int, Shape] = MappingProxyType({4: Shape(2, 2), 6: Shape(2, 3), 9: Shape(3, 3)})


@dataclass(frozen=True, slots=True)
class Search:
    """solutions: each S*S digits in reading order, at most `limit` of them. guesses: see the module."""

    solutions: list[list[int]]
    guesses: int


def shape_of(grid: np.ndarray) -> Shape:
    """The shape of a grid (S, S) of digits, 0 where it is empty. Raises PuzzleError for what is no such grid."""
    side = grid.shape[0] if grid.ndim == 2 else 0
    if side not in SHAPES or grid.shape != (side, side) or grid.dtype.kind not in "iu":
        raise PuzzleError(f"sudoku: whole numbers of shape 4x4, 6x6 or 9x9 expected, got {grid.dtype} {grid.shape}")
    if grid.min() < 0 or grid.max() > side:
        raise PuzzleError(f"sudoku: digits must be 0 to {side}, got {grid.min()} to {grid.max()}")
    return SHAPES[side]


def solve_sudoku(grid: np.ndarray, limit: int = 2) -> list[np.ndarray]:
    """The solutions, (S, S) int8 each and at most `limit`, of a grid (S, S) with 0 where it is empty; S is 4, 6 or 9.

    Raises PuzzleError for what is no such grid.
    """
    shape = shape_of(grid)
    found = search(shape.masks(grid.ravel().tolist()), shape, limit).solutions
    return [np.array(digits, dtype=np.int8).reshape(grid.shape) for digits in found]


def search(masks: Sequence[int], shape: Shape, limit: int = 2, chance: Chance | None = None) -> Search:
    """The solutions within the candidates `masks` (S*S bitmasks in reading order), until `limit` are found.

    With limit 2, one solution in the answer is the only one there is. Digits are tried in rising order, with `chance` in
    random order.
    """
    units, peers = _geometry(shape)
    found: list[list[int]] = []
    guesses = 0
    start = list(masks)
    pending = [(start, [cell for cell, mask in enumerate(start) if mask & (mask - 1) == 0])]
    while pending and len(found) < limit:
        cells, single = pending.pop()
        if not _propagate(cells, single, shape.every_digit, units, peers):
            continue
        cell = _most_constrained(cells)
        if cell is None:
            found.append([mask.bit_length() for mask in cells])
            continue
        guesses += 1
        bits = [1 << shift for shift in range(shape.side) if cells[cell] >> shift & 1]
        for bit in chance.distinct(bits, len(bits)) if chance else reversed(bits):
            branch = list(cells)
            branch[cell] = bit
            pending.append((branch, [cell]))
    return Search(found, guesses)


@functools.cache
def _geometry(shape: Shape) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The cells of every unit (row, column, box), and for every cell those that share a unit with it."""
    side, high, wide = shape.side, shape.box_rows, shape.box_columns
    units: dict[tuple[str, int], list[int]] = {}
    for cell in range(side * side):
        row, column = divmod(cell, side)
        box = row // high * high + column // wide
        for unit in (("row", row), ("column", column), ("box", box)):
            units.setdefault(unit, []).append(cell)
    peers = tuple(
        tuple(sorted({other for unit in units.values() if cell in unit for other in unit} - {cell}))
        for cell in range(side * side)
    )
    return tuple(tuple(unit) for unit in units.values()), peers


def _propagate(
    cells: list[int],
    single: list[int],
    every_digit: int,
    units: tuple[tuple[int, ...], ...],
    peers: tuple[tuple[int, ...], ...],
) -> bool:
    """Both kinds of singles, in place, from the cells `single` on; False for a contradiction."""
    while True:
        while single:
            cell = single.pop()
            bit = cells[cell]
            if not bit:
                return False
            for peer in peers[cell]:
                mask = cells[peer]
                if mask & bit:
                    mask ^= bit
                    if not mask:
                        return False
                    cells[peer] = mask
                    if not mask & (mask - 1):
                        single.append(peer)
        for unit in units:
            once = twice = 0
            for cell in unit:
                mask = cells[cell]
                twice |= once & mask
                once |= mask
            if once != every_digit:
                return False
            lonely = once & ~twice
            if not lonely:
                continue
            for cell in unit:
                mask = cells[cell]
                bit = mask & lonely
                if bit and bit != mask:
                    if bit & (bit - 1):
                        return False  # two digits that can go nowhere else
                    cells[cell] = bit
                    single.append(cell)
            if single:
                break
        if not single:
            return True


def _most_constrained(cells: list[int]) -> int | None:
    """The first cell with the fewest candidates above one, None when every cell is settled."""
    best, fewest = None, 1 << 30
    for cell, mask in enumerate(cells):
        if mask & (mask - 1):
            count = mask.bit_count()
            if count == 2:
                return cell
            if count < fewest:
                best, fewest = cell, count
    return best
