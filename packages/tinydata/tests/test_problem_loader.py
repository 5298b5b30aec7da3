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
    train_tokenizer,
)
from tinydata.problem_loader import best_fit
from tinydata.synthetic.exercises import exercises
from tinydata.tight_rows import tight_rows

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


def test_packed_rows_hold_every_problem_once_as_a_document_of_its_own(
    problems: list[EncodedProblem], tokenizer: Tokenizer
) -> None:
    length = 3 * max(len(problem.ids) for problem in problems)
    loader = ProblemLoader(problems, tokenizer, length, 2, packed=True)
    assert loader.rows < len(problems) / 2
    (alone,) = ProblemLoader(problems, tokenizer, length, len(problems)).epoch_batches()
    expected = {
        tuple(row[: len(problem.ids)].tolist()): targets[: len(problem.ids)].tolist()
        for row, targets, problem in zip(alone.tokens, alone.targets, problems, strict=True)
    }
    found: list[tuple[int, ...]] = []
    for batch in loader.epoch_batches():
        for row in range(len(batch.tokens)):
            for document in range(batch.documents[row].max() + 1):
                here = batch.documents[row] == document
                ids = tuple(batch.tokens[row][here].tolist())
                assert batch.targets[row][here].tolist() == expected[ids]
                found.append(ids)
            assert (batch.targets[row][batch.documents[row] == -1] == -100).all()
    assert sorted(found) == sorted(expected)


def test_packed_rows_of_worked_problems_are_full() -> None:
    """Packing instead of padding: of rows with one problem each most is empty."""
    made = [(one.prompt("hand"), one.solution("hand")) for one in exercises(0, 2000)]
    tokenizer = train_tokenizer((Document(question + answer, "x") for question, answer in made[:500]), 1024)
    encoded = encode_problems(made, tokenizer)
    for length, least in ((256, 0.985), (512, 0.99), (1024, 0.99)):
        packed = ProblemLoader(encoded, tokenizer, length, 4, packed=True)
        alone = ProblemLoader(encoded, tokenizer, length, 4)
        assert packed.filled >= least
        assert alone.filled < 0.5
        batches = list(packed.epoch_batches())
        slots = sum(int((batch.documents != -1).sum()) for batch in batches)
        assert packed.filled == slots / (packed.rows * length), "as counted in the batches"
        learned = [sum(batch.target_count for batch in found) for found in (batches, alone.epoch_batches())]
        assert learned[0] == learned[1] == sum(len(one.ids) - one.prompt for one in encoded)


@pytest.mark.parametrize("seed", range(5))
def test_best_fit_leaves_little_room(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 60, 400).tolist()
    groups = best_fit(sizes, 100)
    assert sorted(index for group in groups for index in group) == list(range(400))
    assert all(sum(sizes[index] for index in group) <= 100 for group in groups)
    assert len(groups) <= 1.03 * sum(sizes) / 100 + 1
    assert groups == sorted(groups)
    with pytest.raises(ValueError, match="101 exceeds 100"):
        best_fit([101], 100)


@pytest.mark.parametrize("seed", range(4))
def test_tight_rows_hold_everything_once_and_are_nearly_full(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(40, 200, 1500).tolist()
    rows = tight_rows(sizes, 512)
    assert sorted(index for row in rows for index in row) == list(range(1500))
    assert all(sum(sizes[index] for index in row) <= 512 for row in rows)
    assert rows == sorted(rows) == [sorted(row) for row in rows] == tight_rows(sizes, 512)
    assert len(rows) <= -(-sum(sizes) // 512) + 2
    assert len(rows) < len(best_fit(sizes, 512))


def test_every_tight_row_is_the_best_that_its_first_item_allows() -> None:
    """Against all subsets of a few items."""
    draw = np.random.default_rng(9)
    for _ in range(60):
        sizes = draw.integers(1, 30, 9).tolist()
        capacity = int(draw.integers(max(sizes), 80))
        rows = tight_rows(sizes, capacity)
        largest = max(sizes)
        others = sorted(sizes)[:-1]
        sums = {sum(some) for count in range(9) for some in itertools.combinations(others, count)}
        best = largest + max(total for total in sums if total <= capacity - largest)
        assert best in [sum(sizes[index] for index in row) for row in rows]
    with pytest.raises(ValueError, match="9 is not 1 to 8"):
        tight_rows([9], 8)


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


def test_what_a_tool_writes_is_not_learned() -> None:
    pairs = [("2 * 3 <calc>?\n", "<calc>2*3</calc><result>6</result>\n#### 6"), ("1?\n", "#### 1")]
    tokenizer = train_tokenizer((Document(q + a, "x") for q, a in PAIRS), 300)
    problems = encode_problems(pairs, tokenizer, calls=True)
    (batch,) = ProblemLoader(problems, tokenizer, 64, 2).epoch_batches()
    ids, targets = batch.tokens[0], batch.targets[0]
    at = {name: int(np.flatnonzero(ids == tokenizer.special[name])[0]) for name in ("<calc>", "<result>", "</result>")}
    assert at["<calc>"] == problems[0].prompt, "the question's <calc> is ordinary characters"
    learned = targets != -100
    assert not learned[at["<result>"] - 1 : at["</result>"]].any(), "no position predicts <result>, 6 or </result>"
    assert learned[at["</result>"]], "what comes after is predicted from the result"
    assert targets[at["</result>"]] == ids[at["</result>"] + 1]
    assert learned.sum() == len(problems[0].ids) - problems[0].prompt - 3
    assert batch.target_count == (batch.targets != -100).sum()
    plain = encode_problems(pairs, tokenizer)
    assert not any(problem.given.any() for problem in plain)


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
