"""Questions with worked answers as rows: what is learned is the answer and the end behind it.

    tokens     end question answer end end end ...      documents 0, and -1 in the padding behind the first end
    targets    the answer's tokens and its end, shifted; -100 in the question, in the padding, and where a tool writes: the
               answer's tokens from <result> to </result>

Packed, a row holds as many problems as fit, each a document of its own: which ones stand together is settled once, by best
fit, the longest first, and no problem is cut. Where that leaves more than 1 % of the slots empty, rows are those of
`tight_rows` if they are fewer.

Which rows make a batch, `row_loader` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinydata.batch import Batch
from tinydata.loader import NO_TARGET, PADDING
from tinydata.row_loader import RowLoader, require_rows
from tinydata.row_plan import FILLED
from tinydata.tight_rows import tight_rows
from tinydata.tokenizer import Tokenizer

RESULT = ("<result>", "</result>")  # of what a tool answers, in tokenizers that have such tokens


@dataclass(frozen=True, eq=False)
class EncodedProblem:
    """ids: the end token, the question, the answer, the end token. prompt: how many of them are before the answer.
    given: bool of each, whether somebody else writes it (a tool, or a text that notes are taken of), so that it is not
    learned."""

    ids: np.ndarray
    prompt: int
    given: np.ndarray


def encode_problems(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, calls: bool = False
) -> list[EncodedProblem]:
    """(question, answer) as texts, joined as they are -> ids. calls: tags such as `<calc>` in an answer are the single tokens
    that they name (the answer must be one that we wrote, see `WordProblem.with_calls`), and what stands between those of
    RESULT is given; in a question they never are."""
    questions = tokenizer.encode_batch([question for question, _ in pairs])
    answers = tokenizer.encode_batch([answer for _, answer in pairs], allow_special=calls)
    end = tokenizer.end_id
    opening, closing = (tokenizer.special.get(name) for name in RESULT)
    found = []
    for question, answer in zip(questions, answers, strict=True):
        ids = np.array([end, *question, *answer, end], dtype=np.int64)
        prompt = 1 + len(question)
        given = np.zeros(len(ids), dtype=bool)
        if calls and opening is not None and closing is not None:
            given[prompt:] = _between(ids[prompt:], opening, closing)
        found.append(EncodedProblem(ids, prompt, given))
    return found


class Part(NamedTuple):
    """A piece of a text. learned: whether the model is to write it; trusted: whether we wrote it, so that names of special
    tokens in it are these tokens."""

    text: str
    learned: bool
    trusted: bool


def encode_parts(parts: Sequence[Part | tuple[str, bool]], tokenizer: Tokenizer) -> EncodedProblem:
    """One text in pieces, each with whether it is learned -> ids: what is not, is given, wherever it stands.

    Pieces are encoded one by one: cut them where whoever continues the text will. Those that are learned are trusted, the
    others are not, unless a `Part` says otherwise. Raises ValueError where nothing is learned.
    """
    pieces = [part if isinstance(part, Part) else Part(*part, part[1]) for part in parts]
    if not any(piece.learned for piece in pieces):
        raise ValueError("encode_parts: nothing is learned")
    encoded = [tokenizer.encode(piece.text, allow_special=piece.trusted) for piece in pieces]
    given = [not piece.learned for piece, ids in zip(pieces, encoded, strict=True) for _ in ids]
    ids = [tokenizer.end_id, *(token for ids in encoded for token in ids), tokenizer.end_id]
    return EncodedProblem(np.array(ids, dtype=np.int64), 1 + given.index(False), np.array([False, *given, False]))


def _between(ids: np.ndarray, opening: int, closing: int) -> np.ndarray:
    """Of each id, whether it stands between an opening and the next closing one, both included."""
    opened, closed = np.cumsum(ids == opening), np.cumsum(ids == closing)
    return (opened > closed) | (ids == closing)


class ProblemLoader(RowLoader[Batch, list[int]]):
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
        packed: bool = False,
    ) -> None:
        """packed: as many problems a row as fit, instead of one.

        Raises ValueError for no problems, one that is longer than a row, ids of another tokenizer as far as they can be told,
        and sizes that make no sense.
        """
        sizes = [len(problem.ids) for problem in problems]
        require_rows("problems", sizes, sequence_length)
        largest = max(int(problem.ids.max()) for problem in problems)
        if largest >= tokenizer.vocab_size:
            raise ValueError(
                f"problems: id {largest} is not of this tokenizer's {tokenizer.vocab_size}: encode them with it"
            )
        rows = full_rows(sizes, sequence_length) if packed else [[index] for index in range(len(problems))]
        key = content_key(problems)
        super().__init__(rows, key, sequence_length, batch_size, rank, world, seed, prefetch)
        self.problems, self._end = problems, tokenizer.end_id
        # padded so that -100, as an index from the end, reads a zero
        self._token_bytes = np.concatenate([tokenizer.token_bytes(), np.zeros(-NO_TARGET, dtype=np.int64)])

    @property
    def filled(self) -> float:
        """Share of an epoch's slots that hold a token."""
        return sum(len(problem.ids) for problem in self.problems) / (self.rows * self._length)

    def _assemble(self, rows: Sequence[list[int]]) -> Batch:
        tokens = np.full((len(rows), self._length), self._end, dtype=np.int64)
        documents = np.full(tokens.shape, PADDING, dtype=np.int64)
        targets = np.full(tokens.shape, NO_TARGET, dtype=np.int64)
        for row, members in enumerate(rows):
            at = 0
            for number, index in enumerate(members):
                problem = self.problems[index]
                place = slice(at, at + len(problem.ids))
                tokens[row, place], documents[row, place] = problem.ids, number
                # a conversation may have an end within it (`chat_format`), behind which there is more to learn
                learned = (np.arange(len(problem.ids)) >= problem.prompt) & ~problem.given
                targets[row, place][:-1] = np.where(learned, problem.ids, NO_TARGET)[1:]
                at = place.stop
        count = int((targets != NO_TARGET).sum())
        return Batch(tokens, targets, documents, count, int(self._token_bytes[targets].sum(dtype=np.int64)))


def full_rows(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Best fit, or `tight_rows` where that leaves more than 1 % of the slots empty and needs more rows."""
    rows = best_fit(sizes, capacity)
    if sum(sizes) >= FILLED * len(rows) * capacity:
        return rows
    return min(rows, tight_rows(sizes, capacity), key=len)


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in groups whose sum is at most `capacity`: each goes, the largest first, where the least room is left
    over. Groups come in the order of their first members. Raises ValueError for a size above the capacity."""
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room that is left -> groups
    groups: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        if sizes[index] > capacity:
            raise ValueError(f"best_fit: {sizes[index]} exceeds {capacity}")
        room = next((room for room in range(sizes[index], capacity + 1) if by_room[room]), None)
        if room is None:
            groups.append([])
            group, room = len(groups) - 1, capacity
        else:
            group = by_room[room].pop()
        groups[group].append(index)
        by_room[room - sizes[index]].append(group)
    for group in groups:
        group.sort()
    return sorted(groups)


def content_key(problems: Sequence[EncodedProblem]) -> str:
    """SHA-256 of all problems in their order."""
    found = hashlib.sha256()
    for problem in problems:
        found.update(
            problem.prompt.to_bytes(4, "little") + problem.ids.astype("<i8").tobytes() + problem.given.tobytes()
        )
    return found.hexdigest()
