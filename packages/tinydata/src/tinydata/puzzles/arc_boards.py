"""ARC-AGI pairs as rows of codes (see `boards`): both grids on a canvas, the rule named in the slots.

    0 outside, 1 the edge behind a grid's last column and below its last row, 2 + c the colour c

What is asked is the output grid with its edge, so its size is predicted as well; outside nothing is. A model that predicts in
place sees one pair at a time, so it must be told which task a pair is of: TRM learns a vector for every augmented task, here
the slots spell it (4 digits of the task's number, the turn, the ten colours), and a row of a task in another dress is the
row of the same task with another turn and other colours. Test inputs of tasks whose demonstrations were trained on are
answered so; the canvas is as large as the largest grid, at most 30.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinydata.batch import NOTHING_ASKED
from tinydata.puzzles.arc import COLOURS, MAX_SIDE, ArcPair, ArcTask
from tinydata.puzzles.arc_augmentation import ArcAugmentation
from tinydata.puzzles.boards import Boards, Restore
from tinydata.puzzles.dihedral import TURNS
from tinydata.puzzles.stream import PuzzleError
from tinydata.synthetic.chance import Chance

EDGE, FIRST_COLOUR = 1, 2
NAME = 4 + 1 + COLOURS  # slots that a task's name takes
SLOTS = 16
MOST_TASKS = 10_000


@dataclass(frozen=True, eq=False)
class ArcRow:
    """Pair `number` of the task that is `task` in the collection's order."""

    task: int
    number: int
    pair: ArcPair


class ArcBoards(Boards):
    """Demonstration pairs of tasks, or their tests: `rows` lists them."""

    vocabulary = FIRST_COLOUR + COLOURS
    slots = SLOTS
    attempts = 2

    def __init__(self, tasks: Iterable[ArcTask], tests: bool = False, side: int = MAX_SIDE) -> None:
        """tests: the pairs to solve, with or without outputs, instead of the demonstrations. Raises PuzzleError for no
        pairs, more than MOST_TASKS tasks, and grids larger than the canvas of `side`."""
        listed = list(tasks)
        if len(listed) > MOST_TASKS:
            raise PuzzleError(f"arc: {len(listed)} tasks, at most {MOST_TASKS} have a name")
        self.side, self.cells = side, SLOTS + side**2
        self.rows = [
            ArcRow(number, place, pair)
            for number, task in enumerate(listed)
            for place, pair in enumerate(task.test if tests else task.train)
        ]
        if not self.rows:
            raise PuzzleError("arc: no pairs")
        largest = max(
            max(grid.shape) for row in self.rows for grid in (row.pair.input, row.pair.output) if grid is not None
        )
        if largest > side:
            raise PuzzleError(f"arc: a grid has {largest} rows or columns, the canvas {side}")

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int, chance: Chance | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Boards`."""
        return self.dressed(index, ArcAugmentation() if chance is None else _drawn(chance))

    def grids(self, index: int, chance: Chance | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Boards`."""
        given, asked = self.row(index, chance)
        shape = (self.side, self.side)
        return given[SLOTS:].reshape(shape), asked[SLOTS:].reshape(shape)

    def disguised(self, index: int, chance: Chance) -> tuple[np.ndarray, Restore]:
        """See `Boards`; cells that draw no grid come back as nothing but outside."""
        augmentation = _drawn(chance)
        inputs, _ = self.dressed(index, augmentation)

        def restore(cells: np.ndarray) -> np.ndarray:
            grid = self.grid(cells)
            empty = np.zeros(self.side**2, dtype=np.int64)
            return empty if grid is None else self._canvas(augmentation.inverse(grid))

        return inputs, restore

    def dressed(self, index: int, augmentation: ArcAugmentation) -> tuple[np.ndarray, np.ndarray]:
        """The row under a chosen augmentation, for a vote over several."""
        row = self.rows[index]
        name = [*(row.task // 10**power % 10 for power in (3, 2, 1, 0)), augmentation.turn, *augmentation.colours]
        front = np.zeros(SLOTS, dtype=np.int64)
        front[:NAME] = np.array(name) + FIRST_COLOUR
        given = self._canvas(augmentation(row.pair.input))
        asked = np.full(self.side**2, NOTHING_ASKED)
        if row.pair.output is not None:
            output = self._canvas(augmentation(row.pair.output))
            asked = np.where(output == 0, NOTHING_ASKED, output)
        return np.concatenate([front, given]), np.concatenate([np.full(SLOTS, NOTHING_ASKED), asked])

    def grid(self, codes: np.ndarray) -> np.ndarray | None:
        """The grid that predicted cells (side^2,) draw: up to the first column and row that are not colours; None where
        none begins."""
        canvas = codes.reshape(self.side, self.side)
        coloured = canvas >= FIRST_COLOUR
        width = int(np.argmin(coloured[0])) if not coloured[0].all() else self.side
        height = int(np.argmin(coloured[:, 0])) if not coloured[:, 0].all() else self.side
        if not width or not height:
            return None
        return np.maximum(canvas[:height, :width] - FIRST_COLOUR, 0).astype(np.int8)

    def show(self, codes: np.ndarray) -> str:
        """The grid's colours as digits."""
        grid = self.grid(codes)
        return "(no grid)" if grid is None else "\n".join(" ".join(map(str, line)) for line in grid.tolist())

    def _canvas(self, grid: np.ndarray) -> np.ndarray:
        canvas = np.zeros((self.side, self.side), dtype=np.int64)
        height, width = grid.shape
        canvas[:height, :width] = grid.astype(np.int64) + FIRST_COLOUR
        canvas[: height + 1, width : width + 1] = EDGE
        canvas[height : height + 1, : width + 1] = EDGE
        return canvas.ravel()


def _drawn(chance: Chance) -> ArcAugmentation:
    """Any of the 8 turns and of the 9! colourings that keep black."""
    return ArcAugmentation(chance.below(len(TURNS)), (0, *chance.distinct(range(1, COLOURS), COLOURS - 1)))
