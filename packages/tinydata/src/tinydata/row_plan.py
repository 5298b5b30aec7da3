"""Which pieces of which documents share a row: best-fit decreasing bin packing, computed when a loader is built.

A document of n tokens has n - 1 targets. It is cut into ceil((n - 1) / T) pieces of T slots, the last one shorter; a
piece that is not the last has as its last target the first token of the next piece. Pieces go into rows of T slots,
longest first, each into the fullest row it fits (Johnson 1974; for language models arXiv 2404.10830, "Fewer
Truncations Improve Language Modeling", which packs the same way). Nothing is cropped or dropped.

Where nearly all documents are between T / 2 and T long, no packing of whole pieces fills the rows. If more than 1 % of
the slots stay empty, the emptiest rows are dissolved and their pieces cut to fill the gaps of the others, largest gaps
first: a cut piece goes on in another row, as the pieces of a long document do.

Lengths are integers up to T, so all rows with the same free space are handled as one group: a length takes the smallest
group it fits, whole groups at a time. Time O(n log n) for the sort, the rest at most one step a piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shards import ShardSet

FILLED = 0.99  # the share of slots that every plan of many rows fills
REFILLED = 0.995  # what dissolving aims at: a margin for the fragments without a target that it drops


@dataclass(frozen=True, slots=True, eq=False)
class RowPlan:
    """R rows of P pieces in all; row r holds pieces row_start[r] : row_start[r + 1], in the order of their slots.

    row_start (R + 1,) int64. shard (P,) int32: the shard a piece lies in; start (P,) int64: its first token there;
    length (P,) int32: its slots; last (P,) bool: it ends its document, so that its last slot has no target.
    """

    row_start: np.ndarray
    shard: np.ndarray
    start: np.ndarray
    length: np.ndarray
    last: np.ndarray
    sequence_length: int

    @property
    def rows(self) -> int:
        return len(self.row_start) - 1

    @property
    def filled(self) -> float:
        """Share of the slots that hold a token."""
        return int(self.length.sum()) / (self.rows * self.sequence_length)


def plan_rows(shards: ShardSet, sequence_length: int) -> RowPlan:
    """Cuts every document of `shards` into pieces and packs them into rows of `sequence_length` slots."""
    if sequence_length < 1:
        raise ValueError(f"sequence_length must be positive, got {sequence_length}")
    cut = [_cut(shard.offsets, sequence_length) for shard in shards.shards]
    shard = np.repeat(np.arange(len(cut), dtype=np.int32), [len(piece[0]) for piece in cut])
    start, length, last = (np.concatenate(column) for column in zip(*cut, strict=True))
    order, row_start = best_fit_decreasing(length, sequence_length)
    plan = RowPlan(
        row_start=row_start,
        shard=shard[order],
        start=start[order],
        length=length[order],
        last=last[order],
        sequence_length=sequence_length,
    )
    return plan if not len(length) or plan.filled >= FILLED else _dissolve(plan)


def _dissolve(plan: RowPlan) -> RowPlan:
    """The same pieces in as few rows as `REFILLED` asks for, those of the emptiest rows cut into the others' gaps."""
    row = np.repeat(np.arange(plan.rows), np.diff(plan.row_start))
    used = np.bincount(row, weights=plan.length, minlength=plan.rows).astype(np.int64)
    needed = int(-(-used.sum() // (REFILLED * plan.sequence_length)))
    if needed >= plan.rows:  # too few rows for rounding not to matter
        return plan
    fullest = np.argsort(-used, kind="stable")
    renumbered = np.full(plan.rows, -1)
    renumbered[np.sort(fullest[:needed])] = np.arange(needed)
    kept = renumbered[row] >= 0

    # The dissolved pieces, end to end, are cut wherever a piece or a gap ends. (F,) each
    pieces, gap_rows = np.flatnonzero(~kept), fullest[:needed][::-1]
    piece_ends, gap_ends = np.cumsum(plan.length[pieces]), np.cumsum(plan.sequence_length - used[gap_rows])
    ends = np.union1d(piece_ends, gap_ends[gap_ends < piece_ends[-1]])
    starts = np.concatenate([[0], ends[:-1]])
    within = np.searchsorted(piece_ends, starts, side="right")
    piece = pieces[within]
    last = plan.last[piece] & (ends == piece_ends[within])
    # one token that ends its document is an input without a target: the fragment before it predicts it
    useful = (ends > starts) & ~(last & (ends - starts == 1))
    fragment_row = renumbered[gap_rows[np.searchsorted(gap_ends, starts, side="right")]]
    fragment_start = plan.start[piece] + starts - (piece_ends[within] - plan.length[piece])

    new_row = np.concatenate([renumbered[row[kept]], fragment_row[useful]])
    order = np.argsort(new_row, kind="stable")
    length = np.concatenate([plan.length[kept], (ends - starts)[useful].astype(np.int32)])
    return RowPlan(
        row_start=np.concatenate([[0], np.cumsum(np.bincount(new_row, minlength=needed))]),
        shard=np.concatenate([plan.shard[kept], plan.shard[piece[useful]]])[order],
        start=np.concatenate([plan.start[kept], fragment_start[useful]])[order],
        length=length[order],
        last=np.concatenate([plan.last[kept], last[useful]])[order],
        sequence_length=plan.sequence_length,
    )


def _cut(offsets: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, length, last) of the pieces of one shard's documents, in the order of the documents."""
    first, stop = offsets[:-1], offsets[1:]
    # A remainder of one token would be an input without a target: the piece before it already predicts it.
    pieces = -(-(stop - first - 1) // sequence_length)
    document = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = first[document] + number * sequence_length
    length = np.minimum(stop[document] - start, sequence_length)
    return start, length.astype(np.int32), start + length == stop[document]


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs items of 1..capacity into bins; returns (order (P,), bin_start (B + 1,)), both int64.

    Bin b holds the items order[bin_start[b] : bin_start[b + 1]], in the order in which they were put there. Items of
    one length are taken by index, bins of one free space oldest first, so the result is a function of the lengths.
    """
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"items must have lengths 1..{capacity}, got {lengths.min()}..{lengths.max()}")
    by_length = np.argsort(-lengths.astype(np.int64), kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    bin_of = np.empty(len(lengths), dtype=np.int64)  # for the items in the order of by_length
    groups: dict[int, list[np.ndarray]] = {}  # free space -> bins, as arrays to be concatenated when they are needed
    occupied = 0  # bit s is set where groups[s] has a bin: finds the smallest space that fits in one expression
    bins = taken = 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        left = count
        while left:
            fitting = occupied >> length
            if fitting:
                space = length + (fitting & -fitting).bit_length() - 1
                candidates = np.concatenate(groups.pop(space))
                occupied ^= 1 << space
            else:
                space = capacity
                needed = -(-left // (capacity // length))
                candidates = np.arange(bins, bins + needed)
                bins += needed
            # Once an item is in a bin, that bin is the fullest that fits: it takes as many as it holds.
            each = space // length
            full, rest = min(len(candidates), left // each), 0
            if full < len(candidates):
                rest = left - full * each
            used = np.repeat(candidates[:full], each)
            bin_of[taken : taken + len(used)] = used
            taken += len(used)
            bin_of[taken : taken + rest] = candidates[full : full + 1].repeat(rest)
            taken += rest
            left -= len(used) + rest
            touched = full + (rest > 0)
            for remaining, members in (
                (space - each * length, candidates[:full]),
                (space - rest * length, candidates[full:touched]),
                (space, candidates[touched:]),
            ):
                if remaining and len(members):
                    groups.setdefault(remaining, []).append(members)
                    occupied |= 1 << remaining
    placed = np.argsort(bin_of, kind="stable")
    bin_start = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=bins))])
    return by_length[placed], bin_start.astype(np.int64)
