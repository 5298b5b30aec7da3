"""From problems to encoded rows: read or made, split by the question's hash, tokenized; too long ones left out and counted."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import tinydata
from apps.common import chats
from apps.common.console import Console
from apps.common.data_config import HubTokenizer, TokenizerFile, TrainedTokenizer
from apps.common.errors import BadRequest
from apps.common.practice import Practised, sorted_into
from apps.common.prepared import Tokenized
from apps.common.problem_config import AnsweredData, ChatData, ExerciseData, ProblemData
from apps.common.replay import with_replay
from tinydata import Document, EncodedProblem, Tokenizer, encode_problems, split_of, train_tokenizer
from tinydata.documents import Split
from tinydata.problem_loader import content_key
from tinydata.special_tokens import SPECIAL_TOKENS
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.exercise import Exercise, Form
from tinydata.synthetic.exercises import KINDS, exercises
from tinydata.windows import split_long


@dataclass(frozen=True)
class Written:
    """A problem as text: what is asked, what is answered, the answer alone, by what it is counted ("" for nothing), and of
    exercises their kind and how many calculations they take."""

    prompt: str
    solution: str
    answer: str
    label: str = ""
    kind: str = ""
    steps: int = 0


@dataclass(frozen=True)
class PreparedProblems(Tokenized):
    """Encoded problems to train on and to score; `written`: the texts of the latter. Of a curriculum `train` has the problems
    of one stage behind those of another: so many each, `stages`, of such `depths`."""

    train: list[EncodedProblem]
    validation: list[EncodedProblem]
    written: list[Written]
    stages: tuple[int, ...] = ()
    depths: tuple[float, ...] = ()

    @cached_property
    def dataset(self) -> dict[str, str]:
        """What is trained on and scored, by hashes of the contents."""
        return {"train": content_key(self.train), "validation": content_key(self.validation)}


def prepare(data: AnsweredData, vocab_size: int, console: Console) -> PreparedProblems:
    """The problems of `data` for a model of `vocab_size` tokens. Raises SourceError, TokenizerError or BadRequest."""
    if isinstance(data, ChatData):
        return _chats(data, vocab_size, console)
    if isinstance(data, ExerciseData):
        name = "exercises"
        sides = {side: list(written(data, side)) for side in ("train", "validation")}
    else:
        assert isinstance(data, ProblemData)
        name, sides = _read(data, console)
    _require_both(name, sides)
    texts = (problem.prompt + problem.solution for problem in sides["train"])
    tokenizer = _tokenizer(data, texts, vocab_size)
    rows = {
        side: encode_problems([(one.prompt, one.solution) for one in found], tokenizer, calls=data.tags)
        for side, found in sides.items()
    }
    fitting = _fitting(name, data, rows, console)
    train, held_out = _pieces(data, rows["train"], fitting), [rows["validation"][n] for n in fitting["validation"]]
    kept = [sides["validation"][index] for index in fitting["validation"]]
    if isinstance(data, ExerciseData) and data.curriculum is not None:
        texts = [sides["train"][index] for index in fitting["train"]]
        practised = [
            Practised(row, text.prompt, text.kind, text.label, text.steps)
            for row, text in zip(train, texts, strict=True)
        ]
        ordered, stages, depths = sorted_into(data.curriculum, practised, console)
        return PreparedProblems(tokenizer, ordered, held_out, kept, stages, depths)
    return PreparedProblems(tokenizer, with_replay(data, train, tokenizer, console), held_out, kept)


def _chats(data: ChatData, vocab_size: int, console: Console) -> PreparedProblems:
    """Conversations; the tokenizer then knows how they are written."""
    name, sides = chats.sides(data, console)
    _require_both(name, sides)
    texts = (message.text for conversation in sides["train"] for message in conversation)
    tokenizer = chats.with_template(_tokenizer(data, texts, vocab_size), data)
    rows = {side: chats.encoded(found, tokenizer, data) for side, found in sides.items()}
    fitting = _fitting(name, data, rows, console)
    train, held_out = _pieces(data, rows["train"], fitting), [rows["validation"][n] for n in fitting["validation"]]
    return PreparedProblems(tokenizer, with_replay(data, train, tokenizer, console), held_out, [])


def _require_both(name: str, sides: Mapping[str, Sequence[Any]]) -> None:
    for side, found in sides.items():
        if not found:
            raise BadRequest(f"data: none of the problems of {name} fell into the {side} split; give more problems")


def _fitting(
    name: str, data: AnsweredData, rows: Mapping[str, Sequence[EncodedProblem]], console: Console
) -> dict[str, list[int]]:
    """Which of each side a row can hold; what is left out is said. Raises BadRequest where it is all of a side."""
    found = {
        side: [index for index, row in enumerate(encoded) if len(row.ids) <= data.sequence_length]
        for side, encoded in rows.items()
    }
    for side, short in found.items():
        if not short:
            raise BadRequest(
                f"data.sequence_length: every problem of the {side} split is longer than {data.sequence_length}"
            )
    long = {side: len(encoded) - len(found[side]) for side, encoded in rows.items()}
    cut = 0 if data.overlap is None else long["train"]
    if cut:
        console.say(f"{name}: cut {cut:,} problems of more than {data.sequence_length} tokens into pieces")
    if left_out := sum(long.values()) - cut:
        console.say(f"{name}: left out {left_out:,} problems of more than {data.sequence_length} tokens")
    console.say(f"{name}: {len(found['train']):,} problems to train on, {len(found['validation']):,} held out")
    return found


def _pieces(
    data: AnsweredData, rows: Sequence[EncodedProblem], fitting: Mapping[str, Sequence[int]]
) -> list[EncodedProblem]:
    """What is trained on: the problems that fit, and of `data.overlap` the others in pieces."""
    if data.overlap is None:
        return [rows[index] for index in fitting["train"]]
    return split_long(rows, data.sequence_length, data.overlap)


def generated(data: ExerciseData, side: Split, seed: int | None = None) -> Iterator[Exercise]:
    """Exercises of one side, as many as there are among `data.problems`; which side one is on does not depend on the seed, so
    those of another are unseen as well."""
    shares = {"validation": data.validation, "test": data.test}
    made = exercises(
        data.seed if seed is None else seed, data.problems, data.kinds, data.language, data.steps, data.digits
    )
    return (exercise for exercise in made if split_of(exercise.question, shares) == side)


def questions(data: ExerciseData | ProblemData, console: Console) -> Iterator[tuple[str, str]]:
    """What is asked on the training side, and its answer."""
    if isinstance(data, ExerciseData):
        return ((one.question, one.answer) for one in generated(data, "train"))
    return ((one.prompt.strip(), one.answer) for one in _read(data, console)[1]["train"])


def written(data: ExerciseData, side: Split) -> Iterator[Written]:
    """`generated`, each in one of the recipe's forms, drawn by the question's hash."""
    forms = [(cast(Form, name), weight) for name, weight in data.forms.items() if weight > 0]
    limits = list(itertools.accumulate(weight for _, weight in forms))
    for exercise in generated(data, side):
        digest = hashlib.blake2b(f"form {exercise.question}".encode(), digest_size=8).digest()
        drawn = int.from_bytes(digest, "big") / 2**64 * limits[-1]
        form = forms[min(bisect.bisect_right(limits, drawn), len(forms) - 1)][0]
        chance = Chance(f"again {exercise.question}", data.seed)
        prompt = exercise.prompt(form)
        if chance.happens(data.again):
            attempt = exercise.flawed(chance) if chance.happens(0.5) else exercise
            prompt = exercise.prompt_again(form, attempt.solution(form))
        kind = exercise.kind if exercise.kind in KINDS else "words"  # an exercise's own name is that of its story
        yield Written(prompt, exercise.solution(form), exercise.answer, form, kind, len(exercise.steps))


def _read(data: ProblemData, console: Console) -> tuple[str, dict[str, list[Written]]]:
    source = tinydata.Gsm8k(data.path) if data.path else tinydata.Gsm8k.from_hub(data.name, data.config)
    sides: dict[str, list[Written]] = {"train": [], "validation": []}
    for problem in source.problems():
        reasoning = problem.with_calls() if data.tags else problem.reasoning
        solution = f"{reasoning}\n#### {problem.answer}"
        sides[split_of(problem.question, {"validation": data.validation})].append(
            Written(f"{problem.question}\n", solution, problem.answer)
        )
    for reason, count in sorted(source.skipped.items()):
        console.say(f"{source.name}: left out {count:,} {reason}")
    return source.name, sides


def _tokenizer(data: AnsweredData, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """What the recipe names, or one trained on `texts`. Raises BadRequest where the model has no row for all of its tokens."""
    wanted = data.tokenizer
    if isinstance(wanted, TokenizerFile):
        found = Tokenizer.load(wanted.path)
    elif isinstance(wanted, HubTokenizer):
        found = Tokenizer.from_hub(wanted.name)
    else:
        assert isinstance(wanted, TrainedTokenizer)
        tags = [token for token in SPECIAL_TOKENS if data.tags]
        found = train_tokenizer((Document(_without(text, tags), "problems") for text in texts), wanted.vocab_size)
    if found.vocab_size > vocab_size:
        raise BadRequest(
            f"model.vocab_size: {vocab_size} has no row for every one of the tokenizer's {found.vocab_size} tokens"
        )
    return found


def _without(text: str, tags: Sequence[str]) -> str:
    for tag in tags:
        text = text.replace(tag, "")
    return text
