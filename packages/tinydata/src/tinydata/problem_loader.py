"""Questions with worked answers as rows, one problem a row: what is learned is the answer and the end behind it.

    tokens     end question answer end end end ...      documents 0, and -1 in the padding behind the first end
    targets    the answer's tokens and its end, shifted (`answer_targets`); -100 in the question and in the padding

Sample s of a run is problem order_e(s mod N) of epoch e = s // N; which samples make a batch,
`resumable` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinydata.answer_targets import answer_targets
from tinydata.batch import Batch
from tinydata.loader import NO_TARGET, PADDING
from tinydata.permutation import shuffled
from tinydata.resumable import Numbered
from tinydata.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class EncodedProblem:
    """ids: the end token, the question, the answer, the end token. prompt: how many of them are before the answer."""

    ids: np.ndarray
    prompt: int


def encode_problems(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, calls: bool = False
) -> list[EncodedProblem]:
    """(question, answer) as texts, joined as they are -> ids. calls: tags such as `<calc>` in an answer are the single tokens
    that they name (the answer must be one that we wrote, see `WordProblem.with_calls`); in a question they never are."""
    questions = tokenizer.encode_batch([question for question, _ in pairs])
    answers = tokenizer.encode_batch([answer for _, answer in pairs], allow_special=calls)
    end = tokenizer.end_id
    return [
        EncodedProblem(np.array([end, *question, *answer, end], dtype=np.int64), 1 + len(question))
        for question, answer in zip(questions, answers, strict=True)
    ]


class ProblemLoader(Numbered[Batch]):
    """Batches of `batch_size` rows of `sequence_length` slots."""

    def __init__(
        self,
        problems: Sequence[EncodedProblem],
        tokenizer: Tokenizer,
        sequence_length: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        """Raises ValueError for no problems, one that is longer than a row, and sizes that make no sense."""
        super().__init__(batch_size, rank, world, prefetch)
        if not problems:
            raise ValueError("problems: there are none")
        longest = max(len(problem.ids) for problem in problems)
        if longest > sequence_length:
            raise ValueError(f"problems: one has {longest} tokens, a row {sequence_length}")
        self.problems, self._length, self._seed = problems, sequence_length, seed
        self._end = tokenizer.end_id
        # padded so that -100, as an index from the end, reads a zero
        self._token_bytes = np.concatenate([tokenizer.token_bytes(), np.zeros(-NO_TARGET, dtype=np.int64)])
        self._dataset = int(content_key(problems)[:12], 16)

    @property
    def rows(self) -> int:
        """Problems in an epoch, over all ranks."""
        return len(self.problems)

    def epoch_batches(self, rows: int | None = None) -> Iterator[Batch]:
        """The first `rows` problems in their order, for scoring; moves no position. A rank may have fewer batches."""
        mine = range(self.rows if rows is None else min(rows, self.rows))[self._rank :: self._world]
        for first in range(0, len(mine), self.batch_size):
            yield self._assemble([self.problems[index] for index in mine[first : first + self.batch_size]])

    def _maker(self) -> Callable[[int, int], Batch]:
        def make(first: int, stop: int) -> Batch:
            rows = shuffled(np.arange(first, stop), self.rows, self._seed)
            return self._assemble([self.problems[row] for row in rows])

        return make

    def _assemble(self, problems: Sequence[EncodedProblem]) -> Batch:
        tokens = np.full((len(problems), self._length), self._end, dtype=np.int64)
        documents = np.full(tokens.shape, PADDING, dtype=np.int64)
        for row, problem in enumerate(problems):
            tokens[row, : len(problem.ids)] = problem.ids
            documents[row, : len(problem.ids)] = 0
        prompts = np.array([problem.prompt for problem in problems], dtype=np.int64)
        targets = answer_targets(tokens, prompts, self._end)
        count = int((targets != NO_TARGET).sum())
        return Batch(tokens, targets, documents, count, int(self._token_bytes[targets].sum(dtype=np.int64)))

    def _identity(self) -> dict[str, int]:
        return {"dataset": self._dataset, "sequence_length": self._length, "rows": self.rows, "seed": self._seed}


def content_key(problems: Sequence[EncodedProblem]) -> str:
    """SHA-256 of all problems in their order."""
    found = hashlib.sha256()
    for problem in problems:
        found.update(problem.prompt.to_bytes(4, "little") + problem.ids.astype("<i8").tobytes())
    return found.hexdigest()
