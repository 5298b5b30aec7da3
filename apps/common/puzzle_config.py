"""Puzzles that a recipe may learn, as values: generated Sudokus and mazes, ARC tasks from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from apps.common.config_fields import described, not_negative, positive, share
from apps.common.data_config import DataConfig
from tinycore.config import ConfigError

MOST_PUZZLES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PuzzleData:
    """What the kinds of puzzles share."""

    copies: bool = described("train on random symmetric copies, a new one each time", True)
    slots: int = described("positions in front of a puzzle that hold no cell", 16)

    def __post_init__(self) -> None:
        not_negative(self, "slots")

    @property
    def in_place(self) -> bool:
        return True

    @property
    def next_command(self) -> str:
        return "uv run apps/puzzle show {}"

    @property
    def cells(self) -> int:
        """Cells of one puzzle."""
        raise NotImplementedError

    @property
    def positions(self) -> int:
        return self.slots + self.cells

    @property
    def vocabulary(self) -> int:
        """Codes that a cell may have."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GeneratedPuzzles(PuzzleData):
    """What puzzles that are made have in common."""

    puzzles: int = described("different puzzles that are trained on", 1000)
    held_out: int = described("puzzles of the validation side, made to be scored, and as many of the test side", 512)
    seed: int = described("of the puzzles", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "puzzles", "held_out")
        if max(self.puzzles, self.held_out) > MOST_PUZZLES:
            raise ConfigError(
                f"puzzles: more than {MOST_PUZZLES:,} are not kept; random copies make as many as one wants"
            )
        not_negative(self, "seed")


@dataclass(frozen=True, kw_only=True)
class SudokuData(GeneratedPuzzles, DataConfig, kind="sudoku"):
    """Sudokus with one solution, split by the solution's canonical form (4x4 has no validation side: its test side serves)."""

    side: Literal[4, 6, 9] = described("cells of a row, a column and a box", 9)
    clues: int | None = described(
        "stop taking clues away when so many are left; null: take all that can be spared", None
    )
    min_guesses: int = described("least number of guesses that an exact solver needs", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "min_guesses")

    @property
    def cells(self) -> int:
        return self.side**2

    @property
    def vocabulary(self) -> int:
        return self.side + 2


@dataclass(frozen=True, kw_only=True)
class MazeData(GeneratedPuzzles, DataConfig, kind="maze"):
    """Mazes whose one shortest path is to be marked."""

    side: int = described("cells of a row and of a column", 30)
    loops: float = described("probability that a wall between two rooms is opened", 0.0)
    min_length: int = described("fewest steps from start to goal", 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "side", "min_length")
        share(self, "loops")

    @property
    def cells(self) -> int:
        return self.side**2

    @property
    def vocabulary(self) -> int:
        return 6


@dataclass(frozen=True, kw_only=True)
class ArcData(PuzzleData, DataConfig, kind="arc"):
    """ARC-AGI tasks from files: demonstrations are trained on, tests are scored (their names fill the slots)."""

    path: str = described("file with tasks, or folder of them")
    solutions: str | None = described("file with the outputs of the tests; null: they are in the tasks", None)
    side: int = described("cells of a row and of a column of the canvas", 30)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.side <= 30:
            raise ConfigError(f"side: {self.side} is not between 1 and 30")
        if self.slots != 16:
            raise ConfigError(f"slots: {self.slots}, but the name of a task takes 16")

    @property
    def cells(self) -> int:
        return self.side**2

    @property
    def vocabulary(self) -> int:
        return 12
