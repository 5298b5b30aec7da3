"""Questions with worked answers as rows, one problem a row: what is learned is the answer and the end behind it.

    tokens     end question answer end end end ...      documents 0, and -1 in the padding behind the first end
    targets    the answer's tokens and its end, shifted (`answer_targets`); -100 in the question and in the padding

Sample s of a run is problem order_e(s mod N) of epoch e = s // N; batches, ranks and positions are those of `Loader`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinydata.answer_targets import answer_targets
from tinydata.batch import Batch
from tinydata.loader import NO_TARGET, PADDING, LoaderError
from tinydata.permutation import Permutation
from tinydata.prefetch import prefetched
from tinydata.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class EncodedProblem:
    """ids: the end token, the question, the answer, the end token. prompt: how many of them are before the answer."""

    ids: np.ndarray
    prompt: int


def encode_problems(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[EncodedProblem]:
    """(question, answer) as texts, joined as they are -> ids; neither may hold special tokens that are meant."""
    questions, answers = (tokenizer.encode_batch([pair[part] for pair in pairs]) for part in (0, 1))
    end = tokenizer.end_id
    return [
        EncodedProblem(np.array([end, *question, *answer, end], dtype=np.int64), 1 + len(question))
        for question, answer in zip(questions, answers, strict=True)
    ]


class ProblemLoader:
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
        if batch_size < 1 or world < 1 or not 0 <= rank < world or prefetch < 0:
            raise ValueError(f"batch_size {batch_size}, rank {rank}, world {world}, prefetch {prefetch}: out of range")
        if not problems:
            raise ValueError("problems: there are none")
        longest = max(len(problem.ids) for problem in problems)
        if longest > sequence_length:
            raise ValueError(f"problems: one has {longest} tokens, a row {sequence_length}")
        self.problems, self.batch_size = problems, batch_size
        self._length, self._rank, self._world, self._seed, self._prefetch = sequence_length, rank, world, seed, prefetch
        self._end = tokenizer.end_id
        # padded so that -100, as an index from the end, reads a zero
        self._token_bytes = np.concatenate([tokenizer.token_bytes(), np.zeros(-NO_TARGET, dtype=np.int64)])
        self._position = 0
        self._dataset = int(content_key(problems)[:12], 16)

    @property
    def rows(self) -> int:
        """Problems in an epoch, over all ranks."""
        return len(self.problems)

    def state_dict(self) -> dict[str, int]:
        """The position after the batches handed out, and what it is a position in."""
        return {"position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on after the batches of a saved state. Raises LoaderError where problems, rows or seed differ."""
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

    def __iter__(self) -> Iterator[Batch]:
        """Batches without end from the current position."""

        def make(position: int) -> Iterator[tuple[Batch, int]]:
            while True:
                first = position + self._rank * self.batch_size
                position += self.batch_size * self._world
                samples = range(first, first + self.batch_size)
                yield self._assemble([self._problem(sample) for sample in samples]), position

        for batch, position in prefetched(make(self._position), self._prefetch):
            self._position = position
            yield batch

    def epoch_batches(self, rows: int | None = None) -> Iterator[Batch]:
        """The first `rows` problems in their order, for scoring; moves no position. A rank may have fewer batches."""
        mine = range(self.rows if rows is None else min(rows, self.rows))[self._rank :: self._world]
        for first in range(0, len(mine), self.batch_size):
            yield self._assemble([self.problems[index] for index in mine[first : first + self.batch_size]])

    def _problem(self, sample: int) -> EncodedProblem:
        epoch, place = divmod(sample, self.rows)
        return self.problems[int(Permutation(self.rows, self._seed, epoch)(np.array([place]))[0])]

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
