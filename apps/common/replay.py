"""Documents among problems, so that what was learned before them is not forgotten: each is learned whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from apps.common import data
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.problem_config import AnsweredData
from tinydata import EncodedProblem, Tokenizer, split_of


def with_replay(
    config: AnsweredData, problems: Sequence[EncodedProblem], tokenizer: Tokenizer, console: Console
) -> list[EncodedProblem]:
    """`problems`, and behind them documents until these are `config.replay` of all tokens (loaders mix them).

    Those are taken that a run with the same sources would train on, cut where a row ends. Raises BadRequest where the sources
    have not so many, SourceError where they cannot be read.
    """
    if not config.replay:
        return list(problems)
    wanted = sum(len(problem.ids) for problem in problems) * config.replay / (1 - config.replay)
    found: list[EncodedProblem] = []
    have = 0
    for piece in _pieces(config, tokenizer):
        if have >= wanted:
            break
        found.append(piece)
        have += len(piece.ids)
    if have < wanted:
        raise BadRequest(f"data.replay: asks for {wanted:,.0f} tokens of documents, and the sources have {have:,}")
    console.say(f"replay: {len(found):,} pieces of documents, {have:,} tokens")
    return [*problems, *found]


def _pieces(config: AnsweredData, tokenizer: Tokenizer) -> Iterator[EncodedProblem]:
    """Documents of all sources in turn, in pieces that a row holds; a stranger's text has no tags."""
    room = config.sequence_length - 2  # an end on each side
    documents = [data.source_of(source).documents() for source in config.replay_from]
    for taken in itertools.zip_longest(*documents):
        for document in taken:
            if document is None or split_of(document.text, {"validation": config.validation}) != "train":
                continue
            ids = tokenizer.encode(document.text, allow_special=document.allow_special)
            for first in range(0, len(ids), room):
                yield _learned(ids[first : first + room], first + room >= len(ids), tokenizer.end_id)


def _learned(ids: Sequence[int], ends: bool, end: int) -> EncodedProblem:
    """A piece of a document as a problem without a question; the end behind it is learned where the document ends."""
    given = np.zeros(len(ids) + 2, dtype=bool)
    given[-1] = not ends
    return EncodedProblem(np.array([end, *ids, end], dtype=np.int64), 1, given)
