"""Answers that are known to be right or wrong as rows: what a verifier learns from (arXiv 2110.14168).

    tokens     end question answer end end ...          documents 0, and -1 in the padding
    labels     1 or 0 at each token of the answer, by the part it is in; -1 in the question, in padding and where nobody knows

The label of a part stands at each of its tokens: a verifier says at every token how things stand so far.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinydata.batch import VerdictBatch
from tinydata.loader import PADDING
from tinydata.permutation import shuffled
from tinydata.resumable import Numbered
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


class VerdictLoader(Numbered[VerdictBatch]):
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
        super().__init__(batch_size, rank, world, prefetch)
        if not verdicts:
            raise ValueError("verdicts: there are none")
        longest = max(len(verdict.ids) for verdict in verdicts)
        if longest > sequence_length:
            raise ValueError(f"verdicts: one has {longest} tokens, a row {sequence_length}")
        self.verdicts, self._length, self._seed, self._end = verdicts, sequence_length, seed, tokenizer.end_id
        self._dataset = int(verdicts_key(verdicts)[:12], 16)

    @property
    def rows(self) -> int:
        """Verdicts in an epoch, over all ranks."""
        return len(self.verdicts)

    def epoch_batches(self, rows: int | None = None) -> Iterator[VerdictBatch]:
        """The first `rows` verdicts in their order, for scoring; moves no position. A rank may have fewer batches."""
        mine = range(self.rows if rows is None else min(rows, self.rows))[self._rank :: self._world]
        for first in range(0, len(mine), self.batch_size):
            yield self._assemble([self.verdicts[index] for index in mine[first : first + self.batch_size]])

    def _maker(self) -> Callable[[int, int], VerdictBatch]:
        def make(first: int, stop: int) -> VerdictBatch:
            rows = shuffled(np.arange(first, stop), self.rows, self._seed)
            return self._assemble([self.verdicts[row] for row in rows])

        return make

    def _assemble(self, verdicts: Sequence[EncodedVerdict]) -> VerdictBatch:
        longest = max(len(verdict.ids) for verdict in verdicts)
        tokens = np.full((len(verdicts), longest), self._end, dtype=np.int64)
        documents = np.full(tokens.shape, PADDING, dtype=np.int64)
        labels = np.full(tokens.shape, UNKNOWN, dtype=np.int64)
        for row, verdict in enumerate(verdicts):
            size = len(verdict.ids)
            tokens[row, :size], documents[row, :size], labels[row, :size] = verdict.ids, 0, verdict.labels
        lengths = np.array([len(verdict.ids) for verdict in verdicts], dtype=np.int64)
        right = np.array([verdict.right for verdict in verdicts], dtype=np.int64)
        return VerdictBatch(tokens, labels, documents, lengths, right, int((labels != UNKNOWN).sum()))

    def _identity(self) -> dict[str, int]:
        return {"dataset": self._dataset, "sequence_length": self._length, "rows": self.rows, "seed": self._seed}


def verdicts_key(verdicts: Sequence[EncodedVerdict]) -> str:
    """SHA-256 of all verdicts in their order."""
    found = hashlib.sha256()
    for verdict in verdicts:
        found.update(len(verdict.ids).to_bytes(4, "little") + verdict.ids.astype("<i8").tobytes())
        found.update(verdict.labels.astype("<i8").tobytes() + bytes([verdict.right]))
    return found.hexdigest()
