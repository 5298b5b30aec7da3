"""Packed documents folded into rows: how the torch paths of the scans see a batch.

A scan over one long packed stream (1, L, D) would take L dependent steps. Packed batches come from rows of
equal length whose borders are document borders too, so the stream is folded back into the largest number of
rows that its boundaries allow, and the rows advance together. Inside a row, documents begin at recorded
places where the carried state is replaced by the document's own initial state.
"""

import bisect
from itertools import pairwise
from typing import NamedTuple

import torch


class Places(NamedTuple):
    """Positions in the rows, sorted by time: which row, which time step, which document."""

    row: torch.Tensor  # (P,) int64
    time: torch.Tensor  # (P,) int64
    document: torch.Tensor  # (P,) int64
    times: list[int]  # the same times on the host, for `between`

    def between(self, begin: int, end: int) -> "Places":
        """The places with begin <= time < end, their times counted from `begin`."""
        first = bisect.bisect_left(self.times, begin)
        last = bisect.bisect_left(self.times, end)
        window = slice(first, last)
        return Places(
            self.row[window],
            self.time[window] - begin,
            self.document[window],
            [time - begin for time in self.times[window]],
        )

    def __bool__(self) -> bool:
        return len(self.times) > 0


class Rows(NamedTuple):
    """`count` rows of `length` positions; where documents start and where their last position lies."""

    count: int
    length: int
    documents: int
    starts: Places
    lasts: Places


def fold(cu_seqlens: torch.Tensor | None, batch: int, length: int, device: torch.device) -> Rows:
    """Rows of a batch (batch, length): the batch itself, or with `cu_seqlens` (N + 1,), where batch is 1, the
    stream folded at the document borders that allow it. Empty documents have no place."""
    if cu_seqlens is None:
        every = list(range(batch))
        starts = [(0, row, row) for row in every]
        lasts = [(length - 1, row, row) for row in every]
        return Rows(batch, length, batch, _places(starts, device), _places(lasts, device))
    borders = cu_seqlens.tolist()
    count = _row_count(set(borders), length)
    row_length = length // count
    starts, lasts = [], []
    for document, (begin, end) in enumerate(pairwise(borders)):
        if end > begin:
            starts.append((begin % row_length, begin // row_length, document))
            lasts.append(((end - 1) % row_length, (end - 1) // row_length, document))
    return Rows(count, row_length, len(borders) - 1, _places(sorted(starts), device), _places(sorted(lasts), device))


def _row_count(borders: set[int], length: int) -> int:
    """The largest number of equal rows whose borders are all document borders."""
    for row_length in range(1, length):
        if length % row_length == 0 and row_length in borders:
            rows = range(0, length, row_length)
            if all(border in borders for border in rows):
                return len(rows)
    return 1


def _places(found: list[tuple[int, int, int]], device: torch.device) -> Places:
    times = [time for time, _, _ in found]
    rows = [row for _, row, _ in found]
    documents = [document for _, _, document in found]
    return Places(
        torch.tensor(rows, dtype=torch.int64, device=device),
        torch.tensor(times, dtype=torch.int64, device=device),
        torch.tensor(documents, dtype=torch.int64, device=device),
        times,
    )
