"""Batches of puzzles without end: shuffled anew each epoch, each time in another dress, resumable at any step.

Sample s of a run is puzzle order_e(s mod N) of epoch e = s // N, in the random copy that (seed, s) names; which samples make a
batch, `resumable` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tinydata.batch import NOTHING_ASKED, PuzzleBatch
from tinydata.permutation import shuffled
from tinydata.puzzles.boards import Boards, rows_of
from tinydata.resumable import Numbered
from tinydata.synthetic.chance import Chance


class PuzzleLoader(Numbered[PuzzleBatch]):
    """Batches of `batch_size` rows of `boards`; `copies`: as random copies instead of as they are."""

    def __init__(
        self,
        boards: Boards,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        copies: bool = True,
        prefetch: int = 2,
    ) -> None:
        """Raises ValueError for sizes that make no sense."""
        super().__init__(batch_size, rank, world, prefetch)
        self.boards, self.seed, self.copies = boards, seed, copies
        self._dataset = int(boards.content_key[:12], 16)

    @property
    def rows(self) -> int:
        """Puzzles in an epoch, over all ranks."""
        return len(self.boards)

    def epoch_batches(self, rows: int | None = None) -> Iterator[PuzzleBatch]:
        """The first `rows` puzzles as they are, in order, for scoring; moves no position. The last batches may be smaller,
        and a rank may have fewer of them."""
        total = self.rows if rows is None else min(rows, self.rows)
        mine = range(total)[self._rank :: self._world]
        for first in range(0, len(mine), self.batch_size):
            chosen = mine[first : first + self.batch_size]
            yield _batch(*rows_of(self.boards, chosen, [None] * len(chosen)))

    def _maker(self) -> Callable[[int, int], PuzzleBatch]:
        return self._assemble

    def _assemble(self, first: int, stop: int) -> PuzzleBatch:
        samples = np.arange(first, stop)
        dress = [Chance(f"puzzle copy {sample}", self.seed) if self.copies else None for sample in samples.tolist()]
        return _batch(*rows_of(self.boards, shuffled(samples, self.rows, self.seed).tolist(), dress))

    def _identity(self) -> dict[str, int]:
        return {"dataset": self._dataset, "rows": self.rows, "seed": self.seed, "copies": int(self.copies)}


def _batch(inputs: np.ndarray, answers: np.ndarray) -> PuzzleBatch:
    return PuzzleBatch(inputs, answers, int((answers != NOTHING_ASKED).sum()))
