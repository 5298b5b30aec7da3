"""Loaders of rows that were made beforehand: each row once an epoch, shuffled anew each time, resumable at any step.

Sample s of a run is row order_e(s mod N) of epoch e = s // N; which samples make a batch, `resumable` says. Members say what a
batch of rows is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from tinydata.permutation import shuffled
from tinydata.resumable import Numbered

Batch = TypeVar("Batch")
Row = TypeVar("Row")


class RowLoader(Numbered[Batch], Generic[Batch, Row]):
    """Batches of `batch_size` of `members`, of at most `sequence_length` slots; key: a hash of the contents in hex."""

    def __init__(
        self,
        members: Sequence[Row],
        key: str,
        sequence_length: int,
        batch_size: int,
        rank: int,
        world: int,
        seed: int,
        prefetch: int,
    ) -> None:
        """Raises ValueError for sizes that make no sense."""
        super().__init__(batch_size, rank, world, prefetch)
        self._members, self._length, self._seed = members, sequence_length, seed
        self._dataset = int(key[:12], 16)

    @abstractmethod
    def _assemble(self, rows: Sequence[Row]) -> Batch:
        """The batch of these rows."""

    @property
    def rows(self) -> int:
        """Rows in an epoch, over all ranks."""
        return len(self._members)

    def epoch_batches(self, rows: int | None = None) -> Iterator[Batch]:
        """The first `rows` rows in their order, for scoring; moves no position. A rank may have fewer batches."""
        mine = range(self.rows if rows is None else min(rows, self.rows))[self._rank :: self._world]
        for first in range(0, len(mine), self.batch_size):
            yield self._assemble([self._members[index] for index in mine[first : first + self.batch_size]])

    def _maker(self) -> Callable[[int, int], Batch]:
        def make(first: int, stop: int) -> Batch:
            order = shuffled(np.arange(first, stop), self.rows, self._seed)
            return self._assemble([self._members[row] for row in order])

        return make

    def _identity(self) -> dict[str, int]:
        return {"dataset": self._dataset, "sequence_length": self._length, "rows": self.rows, "seed": self._seed}


def require_rows(what: str, sizes: Sequence[int], sequence_length: int) -> None:
    """Raises ValueError where there is none of `what`, or one is longer than a row."""
    if not sizes:
        raise ValueError(f"{what}: there are none")
    if max(sizes) > sequence_length:
        raise ValueError(f"{what}: one has {max(sizes)} tokens, a row {sequence_length}")
