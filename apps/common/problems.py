"""From word problems to encoded rows: read, split by the question's hash, tokenized; too long ones left out and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import tinydata
from apps.common.console import Console
from apps.common.data_config import HubTokenizer, ProblemData, TokenizerFile, TrainedTokenizer
from apps.common.errors import BadRequest
from tinydata import Document, EncodedProblem, Tokenizer, WordProblem, encode_problems, split_of, train_tokenizer
from tinydata.problem_loader import content_key
from tinydata.special_tokens import SPECIAL_TOKENS


@dataclass(frozen=True)
class PreparedProblems:
    """Encoded problems to train on and to score; `answers`: the numbers that are right for the latter."""

    tokenizer: Tokenizer
    train: list[EncodedProblem]
    validation: list[EncodedProblem]
    answers: list[str]

    @cached_property
    def dataset(self) -> dict[str, str]:
        """What is trained on and scored, by hashes of the contents."""
        return {"train": content_key(self.train), "validation": content_key(self.validation)}

    @property
    def codes(self) -> str:
        """What the model's ids mean, as a hash."""
        return self.tokenizer.hash

    @property
    def content(self) -> str:
        """One hash of everything."""
        return hashlib.sha256("".join(self.dataset.values()).encode()).hexdigest()

    @property
    def key(self) -> str:
        """A short name of the contents."""
        return self.content[:16]


def prepare(data: ProblemData, vocab_size: int, console: Console) -> PreparedProblems:
    """The problems of `data` for a model of `vocab_size` tokens. Raises SourceError, TokenizerError or BadRequest."""
    source = tinydata.Gsm8k(data.path) if data.path else tinydata.Gsm8k.from_hub(data.name, data.config)
    sides: dict[str, list[WordProblem]] = {"train": [], "validation": []}
    for problem in source.problems():
        sides[split_of(problem.question, {"validation": data.validation})].append(problem)
    for side, found in sides.items():
        if not found:
            raise BadRequest(
                f"data: none of the problems of {source.name} fell into the {side} split; give more problems"
            )
    pairs = {side: [_texts(problem, data) for problem in found] for side, found in sides.items()}
    tokenizer = _tokenizer(data, pairs["train"])
    if tokenizer.vocab_size > vocab_size:
        raise BadRequest(
            f"model.vocab_size: {vocab_size} has no row for every one of the tokenizer's {tokenizer.vocab_size} tokens"
        )
    encoded, left_out, kept = {}, 0, []
    for side, found in pairs.items():
        rows = encode_problems(found, tokenizer, calls=data.annotations == "calls")
        short = [index for index, row in enumerate(rows) if len(row.ids) <= data.sequence_length]
        left_out += len(rows) - len(short)
        encoded[side] = [rows[index] for index in short]
        kept = [sides[side][index].answer for index in short]
        if not short:
            raise BadRequest(
                f"data.sequence_length: every problem of the {side} split is longer than {data.sequence_length}"
            )
    for reason, count in sorted(source.skipped.items()):
        console.say(f"{source.name}: left out {count:,} {reason}")
    if left_out:
        console.say(f"{source.name}: left out {left_out:,} problems of more than {data.sequence_length} tokens")
    console.say(
        f"{source.name}: {len(encoded['train']):,} problems to train on, {len(encoded['validation']):,} held out"
    )
    return PreparedProblems(tokenizer, encoded["train"], encoded["validation"], kept)


def _texts(problem: WordProblem, data: ProblemData) -> tuple[str, str]:
    reasoning = problem.reasoning if data.annotations == "strip" else problem.with_calls(result=None)
    return f"{problem.question}\n", f"{reasoning}\n#### {problem.answer}"


def _tokenizer(data: ProblemData, pairs: list[tuple[str, str]]) -> Tokenizer:
    wanted = data.tokenizer
    if isinstance(wanted, TokenizerFile):
        return Tokenizer.load(wanted.path)
    if isinstance(wanted, HubTokenizer):
        return Tokenizer.from_hub(wanted.name)
    assert isinstance(wanted, TrainedTokenizer)
    tags = [token for token in SPECIAL_TOKENS if data.annotations == "calls"]

    def documents() -> Iterator[Document]:
        for question, answer in pairs:
            text = question + answer
            for tag in tags:
                text = text.replace(tag, "")
            yield Document(text, "problems")

    return train_tokenizer(documents(), wanted.vocab_size)
