"""Batches of puzzles without end: shuffled anew each epoch, each time in another dress, resumable at any step.

Sample s of a run is puzzle order_e(s mod N) of epoch e = s // N, in the random copy that (seed, s) names; micro-batch k of
rank r out of w takes samples (k w + r) m .. (k w + r + 1) m - 1, as `Loader` does with rows of text.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinydata.batch import NOTHING_ASKED, PuzzleBatch
from tinydata.loader import LoaderError
from tinydata.permutation import Permutation
from tinydata.prefetch import prefetched
from tinydata.puzzles.boards import Boards, rows_of
from tinydata.synthetic.chance import Chance


class PuzzleLoader:
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
        if batch_size < 1 or world < 1 or not 0 <= rank < world or prefetch < 0:
            raise ValueError(f"batch_size {batch_size}, rank {rank}, world {world}, prefetch {prefetch}: out of range")
        self.boards, self.seed, self.copies = boards, seed, copies
        self.batch_size, self._rank, self._world, self._prefetch = batch_size, rank, world, prefetch
        self._position = 0  # samples handed out by all ranks together
        self._dataset = int(boards.content_key[:12], 16)

    @property
    def rows(self) -> int:
        """Puzzles in an epoch, over all ranks."""
        return len(self.boards)

    def state_dict(self) -> dict[str, int]:
        """The position after the batches handed out, and what it is a position in."""
        return {"position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on after the batches of a saved state. Raises LoaderError where puzzles, seed or copies differ."""
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise LoaderError(
                    f"data position: {name} was {state.get(name)!r} when it was saved and is {value} now: "
                    "continue with the same data and settings, or start at the beginning"
                )
        position = state.get("position")
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < 2**62:
            raise LoaderError(f"data position: position {position!r} is not a count of samples")
        self._position = position

    def __iter__(self) -> Iterator[PuzzleBatch]:
        """Batches without end from the current position."""

        def make(position: int) -> Iterator[tuple[PuzzleBatch, int]]:
            while True:
                first = position + self._rank * self.batch_size
                position += self.batch_size * self._world
                yield self._assemble(range(first, first + self.batch_size)), position

        for batch, position in prefetched(make(self._position), self._prefetch):
            self._position = position
            yield batch

    def epoch_batches(self, rows: int | None = None) -> Iterator[PuzzleBatch]:
        """The first `rows` puzzles as they are, in order, for scoring; moves no position. The last batches may be smaller,
        and a rank may have fewer of them."""
        total = self.rows if rows is None else min(rows, self.rows)
        mine = range(total)[self._rank :: self._world]
        for first in range(0, len(mine), self.batch_size):
            chosen = mine[first : first + self.batch_size]
            yield _batch(*rows_of(self.boards, chosen, [None] * len(chosen)))

    def _assemble(self, samples: range) -> PuzzleBatch:
        indices = []
        for sample in samples:
            epoch, place = divmod(sample, self.rows)
            indices.append(int(Permutation(self.rows, self.seed, epoch)(np.array([place]))[0]))
        dress = [Chance(f"puzzle copy {sample}", self.seed) if self.copies else None for sample in samples]
        return _batch(*rows_of(self.boards, indices, dress))

    def _identity(self) -> dict[str, int]:
        return {"dataset": self._dataset, "rows": self.rows, "seed": self.seed, "copies": int(self.copies)}


def _batch(inputs: np.ndarray, answers: np.ndarray) -> PuzzleBatch:
    return PuzzleBatch(inputs, answers, int((answers != NOTHING_ASKED).sum()))
