"""Problems as rows: the answer and one end are learned, nothing of the question; a loader goes on where it was."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tinydata import (
    Document,
    EncodedProblem,
    Gsm8k,
    LoaderError,
    ProblemLoader,
    SourceError,
    Tokenizer,
    encode_problems,
    final_answer,
    train_tokenizer,
)

PAIRS = [(f"What is {n} plus {n}?\n", f"{n} + {n} = {2 * n}\n#### {2 * n}") for n in range(1, 12)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer((Document(q + a, "x") for q, a in PAIRS), 300)


@pytest.fixture(scope="module")
def problems(tokenizer: Tokenizer) -> list[EncodedProblem]:
    return encode_problems(PAIRS, tokenizer)


def test_what_is_learned_is_the_answer_and_its_end(problems: list[EncodedProblem], tokenizer: Tokenizer) -> None:
    length = max(len(problem.ids) for problem in problems) + 3
    (batch,) = ProblemLoader(problems, tokenizer, length, len(PAIRS)).epoch_batches()
    for row, (question, answer) in enumerate(PAIRS):
        size, prompt = len(problems[row].ids), problems[row].prompt
        assert tokenizer.decode(batch.tokens[row, 1:prompt].tolist()) == question
        learned = batch.targets[row] != -100
        assert learned.sum() == size - prompt
        assert np.flatnonzero(learned)[0] == prompt - 1, "shifted once: the last token of the question predicts"
        assert tokenizer.decode(batch.targets[row][learned][:-1].tolist()) == answer
        assert batch.targets[row][learned][-1] == tokenizer.end_id
        assert (batch.documents[row] == np.where(np.arange(length) < size, 0, -1)).all()
    assert batch.target_count == (batch.targets != -100).sum()
    assert batch.bytes == sum(len(answer.encode()) for _, answer in PAIRS), "the end token stands for no byte"


def test_padding_adds_nothing(problems: list[EncodedProblem], tokenizer: Tokenizer) -> None:
    length = max(len(problem.ids) for problem in problems)
    short, long = (next(ProblemLoader(problems, tokenizer, size, 4).epoch_batches()) for size in (length, length + 9))
    assert (short.targets == long.targets[:, :length]).all()
    assert (long.targets[:, length:] == -100).all()
    assert (short.target_count, short.bytes) == (long.target_count, long.bytes)


def test_goes_on_where_it_was_and_ranks_share(problems: list[EncodedProblem], tokenizer: Tokenizer) -> None:
    def rows(count: int, loader: ProblemLoader) -> list[list[list[int]]]:
        return [batch.tokens.tolist() for batch in itertools.islice(loader, count)]

    whole = rows(6, ProblemLoader(problems, tokenizer, 64, 4, seed=1))
    loader = ProblemLoader(problems, tokenizer, 64, 4, seed=1)
    first = rows(2, loader)
    again = ProblemLoader(problems, tokenizer, 64, 4, seed=1)
    again.load_state_dict(loader.state_dict())
    assert first + rows(4, again) == whole
    ranks = [rows(3, ProblemLoader(problems, tokenizer, 64, 2, rank, 2, seed=1)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole[:3]
    epoch = [
        row
        for batch in itertools.islice(ProblemLoader(problems, tokenizer, 64, 11), 1)
        for row in batch.tokens.tolist()
    ]
    assert len({tuple(row) for row in epoch}) == 11
    with pytest.raises(LoaderError, match="sequence_length was 64"):
        ProblemLoader(problems, tokenizer, 65, 4, seed=1).load_state_dict(loader.state_dict())


def test_what_is_refused(problems: list[EncodedProblem], tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="there are none"):
        ProblemLoader([], tokenizer, 64, 4)
    with pytest.raises(ValueError, match="a row 5"):
        ProblemLoader(problems, tokenizer, 5, 4)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is 5\n#### 1,234", "1234"),
        ("#### $-3.50 ", "-3.50"),
        ("#### 7\n#### 8", "8"),
        ("it is 5", None),
        ("#### five", None),
        ("#### ", None),
    ],
)
def test_final_answer(text: str, number: str | None) -> None:
    assert final_answer(text) == number


def test_a_dataset_on_the_hub_is_read_as_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": q.strip(), "answer": a} for q, a in PAIRS]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import datasets

    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> list[dict[str, str]]:
        asked.append((name, config, split, streaming))
        return [*rows, {"question": "no answer"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = Gsm8k.from_hub()
    assert list(hub.problems()) == list(Gsm8k(tmp_path / "p.jsonl").problems())
    assert asked == [("openai/gsm8k", "main", "train", True)]
    assert sum(hub.skipped.values()) == 1

    def broken(*_: object, **__: object) -> object:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(SourceError, match=r"dataset openai/gsm8k: cannot be read \(no network\); name a file"):
        list(Gsm8k.from_hub().problems())
