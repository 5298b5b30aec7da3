"""Batches: of text, whose labels are already shifted and never again, of puzzles, which are answered in place, of verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOTHING_ASKED = -100


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B rows of T slots, int64.

    tokens (B, T): ids; the separator's id in padding.
    targets (B, T): the id that follows tokens[b, t] in its document; -100 at the last token of a document and in
    padding.
    documents (B, T): 0, 1, 2... for the pieces in a row, -1 in padding: attention and state stay within equal ids.
    target_count: targets that are not -100. bytes: UTF-8 bytes these targets stand for (special tokens count 0),
    the denominator of bits per byte.
    labels (B, T): what the loader was told of each token's source, -1 in padding and where it was told nothing; None where
    it was told nothing at all.
    """

    tokens: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    target_count: int
    bytes: int
    labels: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PuzzleBatch:
    """B puzzles of T positions, int64, answered in place: what is asked at a position is what belongs there.

    inputs (B, T): codes; answers (B, T): codes, -100 where nothing is asked. target_count: answers that are not -100.
    """

    inputs: np.ndarray
    answers: np.ndarray
    target_count: int


@dataclass(frozen=True, slots=True, eq=False)
class VerdictBatch:
    """B answers with their questions, in rows of T slots, int64: what a verifier learns from.

    tokens, documents (B, T): as of text. labels (B, T): 1 where what stands so far is right, 0 where it is wrong, -1 where
    nothing is to be learned. lengths (B,): tokens of a row that are no padding. right (B,): 1 where the whole answer is right.
    target_count: labels that are not -1.
    """

    tokens: np.ndarray
    labels: np.ndarray
    documents: np.ndarray
    lengths: np.ndarray
    right: np.ndarray
    target_count: int
