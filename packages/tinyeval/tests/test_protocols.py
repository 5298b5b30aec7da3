"""Scores that count tokens, windows and grids, worked by hand; and the suite of somebody else's numbers on the same items."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tinyeval import Item, RandomModel, Scripted, TaskError, evaluate, suites, tasks
from tinyeval.model import Likelihood, Pair
from tinyeval.scoring.choices import accuracies
from tinyeval.sources import items_of
from tinyeval.task import from_dict, with_dataset, without_examples

PLAIN = {
    "name": "own",
    "version": 1,
    "description": "x",
    "source": "x",
    "licence": "x",
    "dataset": {"kind": "file", "format": "items"},
    "scoring": "multiple_choice",
    "prompt": "{prompt}",
    "metric": "acc_token",
    "direction": "up",
}


@dataclass(frozen=True)
class Words:
    """Its tokens are words with the space before them; each costs one nat for each of its letters, a known word 0."""

    known: tuple[str, ...] = ()
    tokenizer_id: str = "words"

    def pieces(self, text: str) -> list[str]:
        found: list[str] = []
        for letter in text:
            if letter == " " or not found:
                found.append(letter)
            else:
                found[-1] += letter
        return found

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        return [(-self._nats(text), self._nats(text) == 0.0) for _, text in pairs]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        return [-self._nats(text) for text in texts]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        return ["" for _ in prompts]

    def _nats(self, text: str) -> float:
        return float(sum(len(word) for word in text.split() if word not in self.known))


def test_the_third_rule_divides_by_tokens() -> None:
    # as a whole b, per byte a, per token c: -6/6 bytes and 1 token, -4/2 and 1, -9/9 and 3
    found = accuracies((-6.0, -4.0, -9.0), ("aaaaaaa", "bb", "c c c c c"), 2, (1, 1, 3))
    assert found == {"acc": 0.0, "acc_norm": 0.0, "acc_token": 1.0}
    assert "acc_token" not in accuracies((-1.0, -2.0), ("a", "b"), 0)


def test_tokens_of_choices_are_those_behind_the_context() -> None:
    items = [
        # three words of 2 letters against one of 4: 6 and 4 nats, 2 and 4 a token
        Item("0", "say", choices=("ab cd ef", "abcd"), right=0),
        Item("1", "say", choices=("abcdef", "abcd"), right=0),
    ]
    result = evaluate(Words(), from_dict(PLAIN), items={"own": items})["own"]
    assert [record.scores["acc_token"] for record in result.records] == [1.0, 0.0]
    assert [record.scores["acc"] for record in result.records] == [0.0, 0.0]


def test_of_a_last_word_the_first_token_alone() -> None:
    task = from_dict({**PLAIN, "scoring": "continuation", "metric": "acc_first"})
    items = [
        Item("0", "the cat", answer="sat down"),
        Item("1", "the cat", answer="ran off"),
        Item("2", "a", answer="x"),
    ]
    result = evaluate(Words(known=("sat", "x")), task, items={"own": items})["own"]
    assert [record.scores["acc_first"] for record in result.records] == [1.0, 0.0, 1.0]
    assert [record.scores["acc"] for record in result.records] == [0.0, 0.0, 1.0]


def test_windows_begin_blind_and_end_where_asked() -> None:
    asked: list[Pair] = []

    class Listening(Words):
        def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
            asked.extend(pairs)
            return super().loglikelihood(pairs)

    task = from_dict({**PLAIN, "scoring": "perplexity", "metric": "bits_per_byte", "window": 2, "most_tokens": 5})
    result = evaluate(Listening(), task, items={"own": [Item("0", "aa bbb c dddd ee ff gg")]})["own"]
    assert asked == [("", "aa bbb"), ("", " c dddd"), (" dddd", " ee")], "what is left over reaches back"
    assert result.scores["perplexity"].mean == pytest.approx(math.exp(12 / 5))
    assert result.scores["bits_per_byte"].mean == pytest.approx(12 / math.log(2) / len("aa bbb c dddd ee"))


def test_models_without_tokens_are_not_asked_for_them() -> None:
    class Mute:
        loglikelihood = Words.loglikelihood
        loglikelihood_rolling = Words.loglikelihood_rolling
        generate_until = Words.generate_until

    found = evaluate(Mute(), from_dict(PLAIN), items={"own": [Item("0", choices=("a", "b"), right=0)]})["own"]
    assert found.skipped is not None
    assert "counts tokens" in found.skipped
    for wrong, words in (
        ({"window": 2}, "window: is for the windows of perplexity"),
        ({"scoring": "perplexity", "metric": "bits_per_byte", "most_tokens": 2}, "most_tokens: is for"),
        ({"scoring": "perplexity", "metric": "bits_per_byte", "window": 0}, "start at 1"),
        ({"dataset": {"kind": "file", "format": "items", "first": 0}}, "first: 0"),
        ({"dataset": {"kind": "file", "format": "items", "only": {"a": 1}}}, "only: "),
        ({"dataset": {"kind": "file", "format": "items", "joined": "yes"}}, "joined: "),
    ):
        with pytest.raises(TaskError, match=words):
            from_dict({**PLAIN, **wrong})


def test_items_are_chosen_in_order(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    rows = [{"id": str(n), "prompt": f"{n} ", "answer": "x", "meta": {"part": "ab"[n % 2]}} for n in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = from_dict({**PLAIN, "scoring": "greedy_answer", "metric": "exact"})

    def prompts(**choice: object) -> list[str]:
        return [item.prompt for item in items_of(with_dataset(task, **choice), files={"own": file})]

    assert prompts(first=3) == ["0 ", "1 ", "2 "]
    assert prompts(only={"part": ["b"]}, first=2) == ["1 ", "3 "]
    assert prompts(only={"part": ["b"]}, first=2, joined=True) == ["1 3 "]


@dataclass(frozen=True)
class Filling:
    """Answers as it is told."""

    answers: dict[str, list[str]]

    def solve(self, items: Sequence[Item]) -> list[list[str]]:
        return [self.answers[item.id] for item in items]


def test_grids_are_right_as_a_whole_in_any_attempt() -> None:
    items = [Item(str(n), answer="1 2 3 4") for n in range(5)]
    model = Filling(
        {
            "0": ["1 2 3 4"],
            "1": ["1 2 3 3"],
            "2": ["4 3 2 1", "1 2 3 4"],
            "3": ["1 2 3"],
            "4": ["4 2 3 1", "1 1 1 1"],
        }
    )
    found = evaluate(model, "sudoku", items={"sudoku": items})["sudoku"]
    assert [record.scores["exact"] for record in found.records] == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert [record.scores["cells"] for record in found.records] == [1.0, 0.75, 0.0, 0.0, 0.5]
    assert found.score is not None
    assert found.score.mean == 0.4
    assert found.tokenizer_id is None
    for other, task in ((RandomModel(), "maze"), (model, "arithmetic")):
        skipped = evaluate(other, task)[task].skipped
        assert skipped is not None
        assert "needs a model that" in skipped


def test_the_suite_of_brandon_tiny(tmp_path: Path) -> None:
    suite = suites.load("brandon-tiny")
    assert [pair.standard_name for pair in suite.pairs] == [
        "blimp", "hellaswag", "arc_easy", "piqa", "winogrande", "lambada", "wikitext2",
    ]  # fmt: skip
    assert len({task.name for task in suite.tasks}) == 14
    assert not {task.name for task in suite.tasks} & set(tasks.names())
    by_name = {pair.standard_name: pair for pair in suite.pairs}
    assert len(by_name["blimp"].protocol.dataset["config"]) == 24
    assert by_name["blimp"].standard.dataset["config"] == by_name["blimp"].protocol.dataset["config"]
    file = tmp_path / "piqa.jsonl"
    rows = [{"goal": f"to do {n}", "sol1": "ab cd ef", "sol2": "abcd", "label": 0} for n in range(1010)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = by_name["piqa"]
    files = {pair.protocol.name: file, pair.standard.name: file}
    found = evaluate(Words(), [pair.protocol, pair.standard], files=files)
    ours, theirs = found[pair.standard.name], found[pair.protocol.name]
    assert ours.n == theirs.n == 1000
    assert [record.id.split("-")[-1] for record in ours.records] == [
        record.id.split("-")[-1] for record in theirs.records
    ]
    # 6 nats of 3 tokens against 4 of 1: right per token and per byte, wrong as a whole
    assert theirs.scores["acc_token"].mean == 1.0
    assert theirs.scores["acc"].mean == 0.0
    assert pair.protocol.asked({"prompt": "to fly"}) == "Goal: to fly\nSolution:"
    assert pair.standard.asked({"prompt": "to fly"}) == "Question: to fly\nAnswer:"
    whole = by_name["winogrande"].protocol
    gap = {"sentence": "The _ is big.", "option1": "cat", "option2": "dog", "answer": "2"}
    lines = tmp_path / "winogrande.jsonl"
    lines.write_text(json.dumps(gap) + "\n")
    (item,) = items_of(whole, files={whole.name: lines})
    assert item.choices == ("The cat is big.", "The dog is big.")
    assert item.right == 1
    with pytest.raises(TaskError, match="did you mean brandon-tiny"):
        suites.load("brandon_tiny")


def test_a_name_is_enough_and_examples_can_be_left_out() -> None:
    by_name = evaluate(RandomModel(), "arithmetic", limit=5)["arithmetic"]
    assert by_name.records == evaluate(RandomModel(), tasks.load("arithmetic"), limit=5)["arithmetic"].records
    with pytest.raises(TaskError, match="did you mean arithmetic"):
        evaluate(RandomModel(), "arithmetik")
    task = tasks.load("steps")
    bare = without_examples(task)
    assert len(task.examples) == 2
    assert bare.asked({"prompt": "Question: x\nAt once:\n"}) == "Question: x\nAt once:\n"
    assert task.asked({"prompt": "Question: x\n"}).count("Answer: ") == 2
    assert bare.identity != task.identity
    assert without_examples(bare) is bare


def test_bits_per_byte_of_a_group_are_its_bits_over_its_bytes() -> None:
    items = [
        Item("0", "aa", meta={"part": "a"}),
        Item("1", "aaaaaa", meta={"part": "b"}),
        Item("2", "a a", meta={"part": "b"}),
    ]
    found = evaluate(
        Words(), from_dict({**PLAIN, "scoring": "perplexity", "metric": "bits_per_byte"}), items={"own": items}
    )
    cells = found["own"].grouped("part")
    assert cells[("a",)] == (pytest.approx(1 / math.log(2)), 1)
    assert cells[("b",)] == (pytest.approx(8 / math.log(2) / 9), 2)


def test_scripted_models_are_asked_as_before() -> None:
    found = evaluate(Scripted(lambda prompt: " 7"), "arithmetic", limit=3)["arithmetic"]
    assert found.skipped is None
