"""Answers that are known to be right or wrong as rows: what a verifier learns from (arXiv 2110.14168).

    tokens     end question answer end end ...          documents 0, and -1 in the padding
    labels     1 or 0 at each token of the answer, by the part it is in; -1 in the question, in padding and where nobody knows

The label of a part stands at each of its tokens: a verifier says at every token how things stand so far.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydata.batch import VerdictBatch
from tinydata.loader import PADDING
from tinydata.row_loader import RowLoader, require_rows
from tinydata.tokenizer import Tokenizer

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Verdict:
    """A question and an answer to it, cut into parts: (characters of the answer up to the end of the part, 1 right, 0 wrong,
    None unknown), the last of which ends where the answer does. right: whether the answer as a whole is."""

    prompt: str
    answer: str
    parts: tuple[tuple[int, int | None], ...]
    right: bool


@dataclass(frozen=True, eq=False)
class EncodedVerdict:
    """ids: the end token, the question, the answer. labels: of each; right: of the whole."""

    ids: np.ndarray
    labels: np.ndarray
    right: bool


def encode_verdicts(verdicts: Sequence[Verdict], tokenizer: Tokenizer) -> list[EncodedVerdict]:
    """Tags in answers are the single tokens that they name, in questions they never are. Raises ValueError for parts that do
    not cover an answer in order."""
    prompts = tokenizer.encode_batch([verdict.prompt for verdict in verdicts])
    found = []
    for verdict, prompt in zip(verdicts, prompts, strict=True):
        ends = [0, *(end for end, _ in verdict.parts)]
        if ends != sorted(ends) or ends[-1] != len(verdict.answer):
            raise ValueError(f"verdicts: parts end at {ends[1:]}, the answer at {len(verdict.answer)}")
        pieces = [verdict.answer[first:end] for first, end in itertools.pairwise(ends)]
        encoded = tokenizer.encode_batch(pieces, allow_special=True)
        labels = [UNKNOWN] * (1 + len(prompt))
        for ids, (_, label) in zip(encoded, verdict.parts, strict=True):
            labels += [UNKNOWN if label is None else label] * len(ids)
        ids = [tokenizer.end_id, *prompt, *(token for piece in encoded for token in piece)]
        found.append(EncodedVerdict(np.array(ids, np.int64), np.array(labels, np.int64), verdict.right))
    return found


class VerdictLoader(RowLoader[VerdictBatch, EncodedVerdict]):
    """Batches of `batch_size` rows, each as long as its longest answer, which has at most `sequence_length` tokens."""

    def __init__(
        self,
        verdicts: Sequence[EncodedVerdict],
        tokenizer: Tokenizer,
        sequence_length: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        """Raises ValueError for no verdicts, one that is longer than a row, and sizes that make no sense."""
        require_rows("verdicts", [len(verdict.ids) for verdict in verdicts], sequence_length)
        key = verdicts_key(verdicts)
        super().__init__(verdicts, key, sequence_length, batch_size, rank, world, seed, prefetch)
        self._end = tokenizer.end_id

    def _assemble(self, rows: Sequence[EncodedVerdict]) -> VerdictBatch:
        longest = max(len(verdict.ids) for verdict in rows)
        tokens = np.full((len(rows), longest), self._end, dtype=np.int64)
        documents = np.full(tokens.shape, PADDING, dtype=np.int64)
        labels = np.full(tokens.shape, UNKNOWN, dtype=np.int64)
        for row, verdict in enumerate(rows):
            size = len(verdict.ids)
            tokens[row, :size], documents[row, :size], labels[row, :size] = verdict.ids, 0, verdict.labels
        lengths = np.array([len(verdict.ids) for verdict in rows], dtype=np.int64)
        right = np.array([verdict.right for verdict in rows], dtype=np.int64)
        return VerdictBatch(tokens, labels, documents, lengths, right, int((labels != UNKNOWN).sum()))


def verdicts_key(verdicts: Sequence[EncodedVerdict]) -> str:
    """SHA-256 of all verdicts in their order."""
    found = hashlib.sha256()
    for verdict in verdicts:
        found.update(len(verdict.ids).to_bytes(4, "little") + verdict.ids.astype("<i8").tobytes())
        found.update(verdict.labels.astype("<i8").tobytes() + bytes([verdict.right]))
    return found.hexdigest()
