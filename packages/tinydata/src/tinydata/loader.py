"""Rows of packed documents as batches: shuffled by a keyed permutation, sharded by rank, resumable at any step.

Sample s of a run is row order_e(s mod R) of epoch e = s // R; which samples make a batch, `resumable` says.

Labels are shifted here and nowhere else: targets[t] = tokens[t + 1] within a document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .batch import NOTHING_ASKED, Batch
from .permutation import shuffled
from .prefetch import prefetched
from .resumable import Numbered
from .row_plan import plan_rows
from .shards import ShardSet

NO_TARGET = NOTHING_ASKED
PADDING = -1
ORDER_BLOCK = 4096  # samples whose rows are computed at once


class Loader(Numbered[Batch]):
    """Endless batches of `batch_size` rows of `sequence_length` slots; see the module for their order.

    rows: rows in an epoch. filled: share of their slots that hold a token. Both come from best-fit decreasing packing,
    which is computed here (about a second for a million documents) and is the same on every rank.
    """

    def __init__(
        self,
        shards: ShardSet,
        sequence_length: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        prefetch: int = 2,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        """`batch_size` is the number of rows of one batch on one rank; `prefetch` batches are made ahead in a thread,
        0 makes them when they are asked for. `labels` gives sources a number, which their tokens have in `Batch.labels`.
        Raises ValueError for sizes that make no sense, ShardError for labels where the order of sources is not known."""
        super().__init__(batch_size, rank, world, prefetch)
        self._shards = shards
        self._plan = plan_rows(shards, sequence_length)
        self._sequence_length = sequence_length
        self._seed = seed
        self._shuffle = shuffle
        self._labels = None if labels is None else shards.labels(labels)  # of each shard's documents
        self._filled_slots: np.ndarray | None = None  # of each row
        # Padded so that -100, as an index from the end, reads a zero.
        self._token_bytes = np.concatenate([shards.token_bytes, np.zeros(-NO_TARGET, dtype=np.int32)])
        self._dataset = int.from_bytes(hashlib.sha256(shards.content_key.encode()).digest()[:6], "big")

    @property
    def rows(self) -> int:
        """Rows in an epoch, over all ranks."""
        return self._plan.rows

    @property
    def filled(self) -> float:
        """Share of an epoch's slots that hold a token."""
        return self._plan.filled

    @property
    def epoch(self) -> int:
        """Whole epochs in the batches handed out so far."""
        return self._place // self.rows

    def epoch_batches(self, rows: int | None = None) -> Iterator[Batch]:
        """One pass over the rows of epoch 0 in order (the first `rows` of them), for validation; moves no position.

        Every rank gets the same number of batches; what is missing in the last ones are rows of padding. To judge on a
        sample, pass shuffle=True to the loader: without it the first rows are those of the longest documents.
        """
        total = self.rows if rows is None else min(rows, self.rows)
        batches = -(-total // (self.batch_size * self._world))
        order = self._order()

        def assemble(index: int) -> Batch:
            first = (index * self._world + self._rank) * self.batch_size
            return self._assemble(order(min(first, total), min(first + self.batch_size, total)))

        return prefetched((assemble(index) for index in range(batches)), self._prefetch)

    def tokens_of(self, samples: np.ndarray) -> np.ndarray:
        """How many slots of each of these samples' rows hold a token; samples (N,) count from 0 over all epochs."""
        rows = self._rows_of_samples(np.asarray(samples))
        return self._row_tokens()[rows]

    def take(self, samples: np.ndarray) -> Batch:
        """The rows of these samples, as one batch; moves no position."""
        rows = self._rows_of_samples(np.asarray(samples))
        return self._assemble(rows, len(rows))

    def _row_tokens(self) -> np.ndarray:
        if self._filled_slots is None:
            sums = np.concatenate([[0], np.cumsum(self._plan.length, dtype=np.int64)])
            self._filled_slots = sums[self._plan.row_start[1:]] - sums[self._plan.row_start[:-1]]
        return self._filled_slots

    def _maker(self) -> Callable[[int, int], Batch]:
        order = self._order()
        return lambda first, stop: self._assemble(order(first, stop))

    def _identity(self) -> dict[str, int]:
        return {
            "dataset": self._dataset,
            "sequence_length": self._sequence_length,
            "rows": self.rows,
            "seed": self._seed,
            "shuffle": int(self._shuffle),
        }

    def _order(self) -> Callable[[int, int], np.ndarray]:
        """A function (first sample, stop) -> (stop - first,) rows, that remembers the block it computed last."""
        block_index, block = -1, np.empty(0, dtype=np.int64)

        def rows_of(first: int, stop: int) -> np.ndarray:
            nonlocal block_index, block
            parts = [np.empty(0, dtype=np.int64)]
            while first < stop:
                if first // ORDER_BLOCK != block_index:
                    block_index = first // ORDER_BLOCK
                    block = self._rows_of_samples(np.arange(block_index * ORDER_BLOCK, (block_index + 1) * ORDER_BLOCK))
                part = block[first % ORDER_BLOCK :][: stop - first]
                parts.append(part)
                first += len(part)
            return np.concatenate(parts)

        return rows_of

    def _rows_of_samples(self, samples: np.ndarray) -> np.ndarray:
        if not self._shuffle:
            return samples % self.rows
        return shuffled(samples, self.rows, self._seed)

    def _assemble(self, rows: np.ndarray, size: int | None = None) -> Batch:
        """The batch of these rows, filled up to `size`, by default `batch_size`, with rows of padding."""
        size, length = size or self.batch_size, self._sequence_length
        plan = self._plan
        first, stop = plan.row_start[rows], plan.row_start[rows + 1]
        counts = np.zeros(size, dtype=np.int64)
        counts[: len(rows)] = stop - first
        # Pieces of the batch, row by row: their index in the plan, row and number within the row. (N,)
        row = np.repeat(np.arange(size), counts)
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        piece = first[row] + number
        lengths = plan.length[piece].astype(np.int64)

        # Spans are the pieces and, at the end of each row, its padding (possibly of no slots).
        used = np.bincount(row, weights=lengths, minlength=size).astype(np.int64)
        ends = np.cumsum(counts)
        span_lengths = np.insert(lengths, ends, length - used)
        span_documents = np.insert(number, ends, PADDING)
        documents = np.repeat(span_documents, span_lengths)  # (B * T,)

        slot_start = row * length + _starts_within(lengths, counts)  # of each piece
        tokens = np.full(size * length + 1, self._shards.end_id, dtype=np.int64)
        following = np.full(len(piece), NO_TARGET, dtype=np.int64)
        piece_labels = np.full(len(piece), PADDING, dtype=np.int64)
        shard_of = plan.shard[piece]
        for index in np.unique(shard_of).tolist():
            chosen = np.flatnonzero(shard_of == index)
            shard = self._shards.shards[index]
            stored = shard.tokens
            start, span = plan.start[piece[chosen]], lengths[chosen]
            within = np.arange(int(span.sum())) - np.repeat(np.cumsum(span) - span, span)
            tokens[np.repeat(slot_start[chosen], span) + within] = stored[np.repeat(start, span) + within]
            continued = ~plan.last[piece[chosen]]
            following[chosen[continued]] = stored[(start + span)[continued]]
            if self._labels is not None:
                piece_labels[chosen] = self._labels[index][np.searchsorted(shard.offsets, start, side="right") - 1]

        labels = None
        if self._labels is not None:
            labels = np.repeat(np.insert(piece_labels, ends, PADDING), span_lengths).reshape(size, length)
        targets = tokens[1:].copy()
        tokens = tokens[:-1]
        targets[documents == PADDING] = NO_TARGET
        targets[slot_start + lengths - 1] = following
        return Batch(
            tokens=tokens.reshape(size, length),
            targets=targets.reshape(size, length),
            documents=documents.reshape(size, length),
            target_count=int(lengths.sum() - plan.last[piece].sum()),
            bytes=int(self._token_bytes[targets].sum(dtype=np.int64)),
            labels=labels,
        )


def _starts_within(lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The sum of the earlier lengths of the same row, for `counts` lengths in each row."""
    before = np.concatenate([[0], np.cumsum(lengths)])
    row_first = np.cumsum(counts) - counts
    return before[:-1] - np.repeat(before[row_first], counts)
