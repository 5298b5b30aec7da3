"""Puzzles as rows of codes for models that predict in place: what is given and what is asked, cell by cell.

A row has `slots` positions that hold 0 and ask for nothing (room to think, where TRM puts its puzzle embedding), then the
cells, row by row:

    Sudoku   1 empty, 1 + d the digit d                                        the answer is the solution
    maze     1 wall, 2 open, 3 start, 4 goal, 5 path                           the answer marks the path

An answer is -100 where nothing is asked. Copies of a puzzle are random symmetric ones, numbered: copy k of puzzle i is a
function of i, k and the seed alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from tinydata.batch import NOTHING_ASKED
from tinydata.puzzles.dihedral import TURNS, turned, undoing
from tinydata.puzzles.maze import OPEN, PATH, Maze
from tinydata.puzzles.stream import PuzzleError
from tinydata.puzzles.sudoku import Sudoku
from tinydata.puzzles.sudoku_symmetry import random_symmetry
from tinydata.synthetic.chance import Chance

Item = TypeVar("Item")
Restore = Callable[[np.ndarray], np.ndarray]
Row = tuple[np.ndarray, np.ndarray]  # inputs, answers: (T,) int64


class Boards(ABC):
    """A collection of puzzles of one size. `vocabulary`: how many codes there are; `cells`: positions of a row, slots
    included; `attempts`: how many
    answers a puzzle allows."""

    vocabulary: int
    slots: int
    cells: int
    attempts: int = 1

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def grids(self, index: int, chance: Chance | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Codes given and asked (H, W), -100 where nothing is; with `chance` of a random copy."""

    @abstractmethod
    def disguised(self, index: int, chance: Chance) -> tuple[np.ndarray, Restore]:
        """The inputs (T,) of a random copy, and what brings its predicted cells (H * W,) back to those of the puzzle."""

    @abstractmethod
    def show(self, codes: np.ndarray) -> str:
        """A row's cells (H * W,), as a person would write them."""

    def row(self, index: int, chance: Chance | None = None) -> Row:
        """Puzzle `index` as a row, or a random copy of it."""
        given, asked = self.grids(index, chance)
        front = np.zeros(self.slots, dtype=np.int64)
        return np.concatenate([front, given.ravel()]), np.concatenate([front + NOTHING_ASKED, asked.ravel()])

    @property
    def content_key(self) -> str:
        """SHA-256 of all rows."""
        found = hashlib.sha256()
        for index in range(len(self)):
            for part in self.row(index):
                found.update(np.ascontiguousarray(part).astype("<i8").tobytes())
        return found.hexdigest()


class SudokuBoards(Boards):
    """Sudokus of one side S: S + 2 codes."""

    def __init__(self, puzzles: Iterable[Sudoku], slots: int = 16) -> None:
        """Raises PuzzleError for no puzzles or several sizes."""
        self.puzzles = list(puzzles)
        self.side = _only("sudoku", {puzzle.shape.side for puzzle in self.puzzles})
        self.vocabulary, self.slots, self.cells = self.side + 2, slots, slots + self.side**2

    def __len__(self) -> int:
        return len(self.puzzles)

    def grids(self, index: int, chance: Chance | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Boards`."""
        puzzle = self.puzzles[index]
        if chance is not None:
            puzzle = puzzle.transformed(random_symmetry(puzzle.shape, chance))
        return puzzle.clues.astype(np.int64) + 1, puzzle.solution.astype(np.int64) + 1

    def disguised(self, index: int, chance: Chance) -> tuple[np.ndarray, Restore]:
        """See `Boards`."""
        puzzle = self.puzzles[index]
        symmetry = random_symmetry(puzzle.shape, chance)
        clues = symmetry(puzzle.clues).astype(np.int64) + 1
        codes = np.arange(self.vocabulary)
        codes[np.concatenate([[1], symmetry.digits[1:].astype(np.int64) + 1])] = np.arange(1, self.vocabulary)

        def restore(cells: np.ndarray) -> np.ndarray:
            turned = np.empty((self.side, self.side), dtype=np.int64)
            turned[np.ix_(symmetry.rows, symmetry.columns)] = codes[cells].reshape(turned.shape)
            return (turned.T if symmetry.transpose else turned).ravel()

        return np.concatenate([np.zeros(self.slots, dtype=np.int64), clues.ravel()]), restore

    def show(self, codes: np.ndarray) -> str:
        """`1 . 3 4`, a line a row; what is no digit is a dot."""
        digits = [str(code - 1) if 1 < code < self.vocabulary else "." for code in codes.tolist()]
        return "\n".join(" ".join(digits[at : at + self.side]) for at in range(0, self.side**2, self.side))


class MazeBoards(Boards):
    """Mazes of one height and width."""

    vocabulary = PATH + 1
    characters = "?#.SGo"

    def __init__(self, puzzles: Iterable[Maze], slots: int = 16) -> None:
        """Raises PuzzleError for no puzzles or several sizes."""
        self.puzzles = list(puzzles)
        self.shape = _only("maze", {puzzle.walls.shape for puzzle in self.puzzles})
        self.slots, self.cells = slots, slots + int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.puzzles)

    def grids(self, index: int, chance: Chance | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Boards`; a maze that is not square is turned by half circles and flipped only."""
        puzzle = self.puzzles[index]
        if chance is not None:
            puzzle = puzzle.transformed(self._turn(chance))
        return puzzle.inputs.astype(np.int64), puzzle.answer.astype(np.int64)

    def disguised(self, index: int, chance: Chance) -> tuple[np.ndarray, Restore]:
        """See `Boards`."""
        turn = self._turn(chance)
        inputs = self.puzzles[index].transformed(turn).inputs.astype(np.int64)

        def restore(cells: np.ndarray) -> np.ndarray:
            return turned(cells.reshape(self.shape), undoing(turn)).ravel()

        return np.concatenate([np.zeros(self.slots, dtype=np.int64), inputs.ravel()]), restore

    def _turn(self, chance: Chance) -> int:
        """A turn or flip that keeps the shape."""
        square = self.shape[0] == self.shape[1]
        return chance.choose(
            [turn for turn in TURNS if square or turned(np.empty(self.shape), turn).shape == self.shape]
        )

    def show(self, codes: np.ndarray) -> str:
        """Walls `#`, path `o`, start `S`, goal `G`."""
        letters = "".join(self.characters[code] if 0 <= code < len(self.characters) else "?" for code in codes.tolist())
        width = self.shape[1]
        return "\n".join(
            letters[at : at + width].replace(self.characters[OPEN], " ") for at in range(0, len(letters), width)
        )


def rows_of(boards: Boards, indices: Sequence[int], chances: Sequence[Chance | None]) -> Row:
    """Several rows (B, T), each a copy by its own chance or the puzzle itself."""
    pairs = [boards.row(index, chance) for index, chance in zip(indices, chances, strict=True)]
    return np.stack([given for given, _ in pairs]), np.stack([asked for _, asked in pairs])


def _only(name: str, found: set[Item]) -> Item:
    if len(found) != 1:
        raise PuzzleError(f"{name}: expected puzzles of one size, got {sorted(map(str, found)) or 'none'}")
    return found.pop()
