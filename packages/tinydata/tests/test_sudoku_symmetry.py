"""Claim: symmetries give other valid puzzles, the canonical form names exactly the classes of symmetric grids, and a split by
it shares no class. Held against walks over whole symmetry groups and enumerations of all grids, written here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from tinydata import puzzles
from tinydata.puzzles.sudoku import DEFAULT_FRACTIONS, side_of, sudoku, sudoku_copies
from tinydata.puzzles.sudoku_solver import SHAPES
from tinydata.puzzles.sudoku_symmetry import random_symmetry
from tinydata.synthetic.chance import Chance

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}


def grids_with_first_row_in_order(side: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Row by row among all permutations, by the rules alone."""
    high, wide = BOXES[side]
    lines = list(itertools.permutations(range(1, side + 1)))

    def fits(upper: tuple[int, ...], lower: tuple[int, ...], same_band: bool) -> bool:
        if any(a == b for a, b in zip(upper, lower, strict=True)):
            return False
        boxes = range(0, side, wide)
        return not same_band or not any(set(upper[x : x + wide]) & set(lower[x : x + wide]) for x in boxes)

    def grow(rows: list[tuple[int, ...]], left: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], ...]]:
        if len(rows) == side:
            yield tuple(rows)
            return
        start = len(rows) // high * high
        for line in left:
            if all(fits(upper, line, True) for upper in rows[start:]):
                below = [other for other in left if not any(a == b for a, b in zip(line, other, strict=True))]
                yield from grow([*rows, line], below)

    first = tuple(range(1, side + 1))
    yield from grow([first], [line for line in lines if fits(first, line, False)])


def line_orders(groups: int, size: int) -> list[list[int]]:
    inner = list(itertools.permutations(range(size)))
    return [
        [group * size + line for group, lines in zip(order, choice, strict=True) for line in lines]
        for order in itertools.permutations(range(groups))
        for choice in itertools.product(inner, repeat=groups)
    ]


def copies_with_first_row_in_order(grid: np.ndarray) -> np.ndarray:
    """(G, S, S): every band, stack, row and column permutation (and transposition), digits renamed so that row 1 is 1..S."""
    side = len(grid)
    high, wide = BOXES[side]
    rows, columns = np.array(line_orders(side // high, high)), np.array(line_orders(side // wide, wide))
    stacked = []
    for turned in (grid, grid.T) if high == wide else (grid,):
        moved = turned[rows[:, None, :, None], columns[None, :, None, :]].reshape(-1, side, side)
        names = np.argsort(moved[:, 0], axis=1) + 1
        stacked.append(np.take_along_axis(names, moved.reshape(len(moved), -1) - 1, axis=1).reshape(moved.shape))
    return np.concatenate(stacked).astype(np.int8)


@pytest.mark.parametrize("side, grids, classes", [(4, 288, 2), (6, 28_200_960, 49)])
def test_the_canonical_form_names_exactly_the_classes(side: int, grids: int, classes: int) -> None:
    """Every grid with row 1 in order belongs to the orbit of one canonical form, and the orbits fill the known total."""
    orbit_of: dict[bytes, bytes] = {}
    forms = []
    total = 0
    for rows in grids_with_first_row_in_order(side):
        total += 1
        grid = np.array(rows, dtype=np.int8)
        if grid.tobytes() in orbit_of:
            continue
        copies = copies_with_first_row_in_order(grid)
        smallest = min(copy.tobytes() for copy in copies)
        form = puzzles.canonical_sudoku(grid)
        assert form.tobytes() == smallest
        assert puzzles.canonical_sudoku(copies[len(copies) // 3]).tobytes() == smallest
        orbit_of.update((copy.tobytes(), smallest) for copy in copies)
        forms.append(smallest)
    assert len(orbit_of) == total
    assert total * math.factorial(side) == grids
    assert len(forms) == len(set(forms)) == classes


def test_the_canonical_form_of_9x9_is_the_smallest_copy() -> None:
    """Of one grid, all 1296 x 1296 x 2 copies are searched, band by band; rows that begin larger are dropped at once."""
    grid = next(sudoku(9, seed=8, clues=81)).solution
    orders = np.array(line_orders(3, 3))
    smallest = None
    for turned, rows in itertools.product((grid, grid.T), orders):
        moved = turned[rows][:, orders].transpose(1, 0, 2)  # (1296, 9, 9)
        names = np.argsort(moved[:, 0], axis=1) + 1
        second = np.take_along_axis(names, moved[:, 1] - 1, axis=1).astype(np.int8)
        best = min(range(len(second)), key=lambda order: second[order].tobytes())
        ties = np.flatnonzero((second == second[best]).all(axis=1))
        for order in ties:
            whole = (names[order][moved[order] - 1]).astype(np.int8).tobytes()
            smallest = whole if smallest is None else min(smallest, whole)
    assert puzzles.canonical_sudoku(grid).tobytes() == smallest


def test_the_grid_with_most_symmetries_is_no_trap() -> None:
    """The most canonical grid has 648 automorphisms, so very many copies tie; it is still done at once."""
    rows = np.array([[(3 * (r % 3) + r // 3 + c) % 9 + 1 for c in range(9)] for r in range(9)], dtype=np.int8)
    form = puzzles.canonical_sudoku(rows)
    chance = Chance("test", 0)
    for _ in range(3):
        copy = random_symmetry(SHAPES[9], chance)(rows)
        assert np.array_equal(puzzles.canonical_sudoku(copy), form)


@pytest.mark.parametrize("side", [4, 6, 9])
def test_what_is_no_solution_has_no_form(side: int) -> None:
    solution = next(sudoku(side)).solution
    empty, repeated, latin = solution.copy(), solution.copy(), solution.copy()
    empty[0, 0] = 0
    repeated[0, 0] = repeated[0, 1]
    # Every row and column is right, boxes are not.
    latin[:] = (np.arange(side)[:, None] + np.arange(side)) % side + 1
    for wrong in (empty, repeated, latin):
        with pytest.raises(puzzles.PuzzleError, match="every row, column and box"):
            puzzles.canonical_sudoku(wrong)


@pytest.mark.parametrize("side", [4, 6, 9])
def test_random_copies_have_the_same_form_and_remain_puzzles(side: int) -> None:
    puzzle = next(sudoku(side, seed=5))
    form = puzzles.canonical_sudoku(puzzle.solution)
    dresses = set()
    for copy in itertools.islice(sudoku_copies(puzzle, seed=1), 20):
        assert np.array_equal(puzzles.canonical_sudoku(copy.solution), form)
        (only,) = puzzles.solve_sudoku(copy.clues)
        assert np.array_equal(only, copy.solution)
        assert np.count_nonzero(copy.clues) == np.count_nonzero(puzzle.clues)
        dresses.add(copy.clues.tobytes())
    assert len(dresses) > 15
    again = next(sudoku_copies(puzzle, seed=1))
    assert np.array_equal(again.clues, next(sudoku_copies(puzzle, seed=1)).clues)


def test_random_symmetries_reach_the_whole_group() -> None:
    """4x4: all 24 * 8 * 8 * 2 of them come up, each with its fair share."""
    chance = Chance("group", 0)
    seen: dict[tuple, int] = {}
    draws = 3072 * 20
    for _ in range(draws):
        one = random_symmetry(SHAPES[4], chance)
        key = (*one.digits.tolist(), *one.rows.tolist(), *one.columns.tolist(), one.transpose)
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 3072
    chi_square = sum((count - 20) ** 2 / 20 for count in seen.values())
    assert abs(chi_square - 3071) < 5 * math.sqrt(2 * 3071)
    assert not any(random_symmetry(SHAPES[6], chance).transpose for _ in range(50))


@pytest.mark.parametrize("side, count", [(4, 100), (6, 100), (9, 10)])
def test_sides_share_no_class(side: int, count: int) -> None:
    splits = ("train", "test") if side == 4 else ("train", "validation", "test")
    forms = {}
    for split in splits:
        stream = itertools.islice(sudoku(side, split=split, clues=side * side), count)
        forms[split] = {puzzles.canonical_sudoku(puzzle.solution).tobytes() for puzzle in stream}
    for one, other in itertools.combinations(splits, 2):
        assert forms[one]
        assert not forms[one] & forms[other]


def test_shares_of_9x9_are_as_asked_and_copies_stay() -> None:
    counts = {"train": 0, "validation": 0, "test": 0}
    for puzzle in itertools.islice(sudoku(9, clues=81), 200):
        side = side_of(puzzle.solution, DEFAULT_FRACTIONS[9])
        copy = next(sudoku_copies(puzzle, seed=counts[side]))
        assert side_of(copy.solution, DEFAULT_FRACTIONS[9]) == side
        counts[side] += 1
    assert 8 <= counts["test"] <= 36
    assert 8 <= counts["validation"] <= 36
