"""Every kind of scoring: the right answers get everything, who knows nothing is at chance, and results read back equal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyeval import (
    ByteNgram,
    CopyingOracle,
    DataError,
    Incomparable,
    Item,
    RandomModel,
    Record,
    ResultError,
    Results,
    Scripted,
    compare,
    compare_task,
    evaluate,
    tasks,
)
from tinyeval.sources import items_of
from tinyeval.task import Task


def questions(count: int = 400) -> list[Item]:
    """Questions with 2 to 5 choices, the right one anywhere."""
    chance = np.random.default_rng(0)
    made = []
    for number in range(count):
        size = int(chance.integers(2, 6))
        choices = tuple("x" * int(chance.integers(1, 9)) + str(index) for index in range(size))
        made.append(Item(f"q{number}", f"question {number}", choices=choices, right=int(chance.integers(size))))
    return made


def knowing(task: Task, items: Sequence[Item]) -> Scripted:
    """A model that writes and prefers what is right."""
    answers = {task.asked({"prompt": item.prompt, **item.fields}): item for item in items}

    def write(prompt: str) -> str:
        item = answers[prompt]
        return f" {item.answer}" if item.right is None else f" {item.choices[item.right]}"

    return Scripted(write, lambda prompt, text: 0.0 if write(prompt) == text else -float(len(text)))


def test_choices_known_and_not_known() -> None:
    task, items = tasks.load("arc_easy"), questions()
    found = evaluate(knowing(task, items), task, items={"arc_easy": items})["arc_easy"]
    assert {name: score.mean for name, score in found.scores.items()} == {"acc": 1.0, "acc_norm": 1.0}
    guessed = evaluate(RandomModel(), task, items={"arc_easy": items})["arc_easy"]
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    assert guessed.chance == pytest.approx(chance)
    for (
        score
    ) in guessed.scores.values():  # the shortest choice, or the longest for which the space before it weighs least
        assert score.standard_error is not None
        assert abs(score.mean - chance) < 3 * score.standard_error
    alike = [replace(item, choices=tuple(f"choice {n}" for n in range(len(item.choices)))) for item in items]
    shared = evaluate(RandomModel(), task, items={"arc_easy": alike})["arc_easy"]
    assert shared.scores["acc"].mean == pytest.approx(chance), (
        "equally long ones are equally likely and share the point"
    )
    assert shared.scores["acc_norm"].mean == pytest.approx(chance)
    assert guessed.n == len(items)
    assert guessed.scores["acc"].standard_error == pytest.approx(
        np.std([record.scores["acc"] for record in guessed.records], ddof=1) / 20
    )


def test_a_model_with_noise_for_scores_is_at_chance() -> None:
    chance = np.random.default_rng(1)
    noise = Scripted(str, lambda prompt, text: float(chance.normal()) * len(text))
    found = evaluate(noise, tasks.load("arc_easy"), items={"arc_easy": questions(1000)})["arc_easy"]
    score = found.scores["acc_norm"]
    assert score.standard_error is not None
    assert found.chance is not None
    assert abs(score.mean - found.chance) < 3 * score.standard_error


def test_each_choice_has_the_context_it_asks_for() -> None:
    asked: list[tuple[str, str]] = []
    model = Scripted(str, lambda prompt, text: asked.append((prompt, text)) or -float(len(prompt)))
    item = Item("w", choices=("left.", "left."), right=1, contexts=("Ann saw Eve as Ann", "as Eve"))
    found = evaluate(model, tasks.load("winogrande"), items={"winogrande": [item]})["winogrande"]
    assert asked == [("Ann saw Eve as Ann", " left."), ("as Eve", " left.")]
    assert found.scores["acc"].mean == 1.0
    assert found.scores["acc"].standard_error is None, "one item says nothing about its spread"
    assert found.records[0].nats == (-18.0, -6.0)


def test_arithmetic_by_digits_and_operation() -> None:
    task = tasks.load("arithmetic")
    items = items_of(task)
    asked = evaluate(knowing(task, items), task)["arithmetic"]
    assert (asked.score.mean, asked.n) == (1.0, 600)

    def only_sums(prompt: str) -> str:
        question = prompt.rpartition("\n\n")[2].removesuffix(" =")
        left, sign, right = question.split()
        return f" {int(left) + int(right)}" if sign == "+" else " no idea"

    found = evaluate(Scripted(only_sums), task)["arithmetic"]
    assert found.grouped("operation") == {
        ("*",): (0.0, 150),
        ("+",): (1.0, 150),
        ("-",): (0.0, 150),
        ("/",): (0.0, 150),
    }
    assert found.grouped("digits", "operation")[2, "+"] == (1.0, 50)
    assert found.score.mean == 0.25
    guessed = evaluate(RandomModel(), task)["arithmetic"]
    assert guessed.score.mean < 0.06


def test_the_needle_is_found_by_who_reads_and_by_no_one_else() -> None:
    task = tasks.load("needle")
    read, guessed = (evaluate(model, task)["needle"] for model in (CopyingOracle(), RandomModel()))
    assert set(read.grouped("length", "depth").values()) == {(1.0, 10)}
    assert guessed.score.mean == 0.0
    items = items_of(task, seed=5)
    untrained = ByteNgram.train([item.prompt for item in items[:20]])
    assert evaluate(untrained, task, seed=6)["needle"].score.mean < 0.05


def test_gsm8k_by_value(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": f"so\n#### {1000 * n}"} for n in range(1, 5)]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = {"q1": "It is 1,000.", "q2": "#### 2000.00", "q3": "3000 and 1", "q4": ""}
    model = Scripted(lambda prompt: said[prompt.rpartition("Question: ")[2].partition("\n")[0]])
    found = evaluate(model, tasks.load("gsm8k"), files={"gsm8k": tmp_path / "g.jsonl"})["gsm8k"]
    assert [record.scores["exact"] for record in found.records] == [1.0, 1.0, 0.0, 0.0]
    assert found.records[0].written == "It is 1,000."


def test_continuations_count_when_they_are_greedy() -> None:
    items = [Item("a", "went to the", answer="sea"), Item("b", "went to a", answer="hill")]
    model = Scripted(lambda prompt: " sea")
    found = evaluate(model, tasks.load("lambada"), items={"lambada": items})["lambada"]
    assert [record.scores["acc"] for record in found.records] == [1.0, 0.0]
    assert found.scores["nats"].mean == pytest.approx(-5 * math.log(256) / 2)


def test_bits_per_byte_are_all_bits_over_all_bytes() -> None:
    items = [Item("a", "x" * 10), Item("b", "y" * 30), Item("c", "z" * 20)]
    # 2 bits a byte for the first, 1 for the others: 20 + 30 + 20 bits over 60 bytes
    model = Scripted(str, lambda _, text: -math.log(2) * len(text) * (2 if "x" in text else 1))
    found = evaluate(model, tasks.load("wikitext2"), items={"wikitext2": items}, name="m")["wikitext2"]
    score = found.scores["bits_per_byte"]
    assert score.mean == pytest.approx(70 / 60)
    assert sum(record.scores["bits_per_byte"] for record in found.records) / 3 == pytest.approx(70 / 60)
    assert found.scores["perplexity"].mean == pytest.approx(2 ** (70 / 60))
    left = [20 - 70 / 6, 30 - 35, 20 - 70 / 3]
    assert score.standard_error == pytest.approx(math.sqrt(sum(one**2 for one in left) / 2 / 3) / 20)
    assert not found.higher_is_better


def test_the_error_of_a_ratio_is_its_spread_over_samples() -> None:
    chance = np.random.default_rng(3)
    task = tasks.load("wikitext2")
    means, errors = [], []
    for _ in range(200):
        sizes = chance.integers(5, 50, 60)
        items = [Item(str(n), "a" * int(size)) for n, size in enumerate(sizes)]
        model = Scripted(str, lambda _, text: -len(text) * float(chance.gamma(4, 0.25)))
        score = evaluate(model, task, items={"wikitext2": items}, batch=60)["wikitext2"].scores["bits_per_byte"]
        means.append(score.mean)
        errors.append(score.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_rules_all_or_in_part() -> None:
    task = tasks.load("stories")
    good = " Lily Tom Ben Mia Sam Anna Max Sue Tim Lucy Jack Ella played all day. " + " ".join(
        f"Then they saw {thing}." for thing in ("a bird", "the sun", "one tree", "two dogs", "my hat", "its tail")
    )
    found = evaluate(Scripted(lambda _: good), task)["stories"]
    assert found.scores["all_rules"].mean == 1.0
    looped = evaluate(Scripted(lambda _: " and so on" * 20), task)["stories"]
    assert looped.scores["all_rules"].mean == 0.0
    assert looped.scores["rules"].mean == pytest.approx(1 / 5), "long it is"
    for name in ("stories", "instructions"):
        assert evaluate(RandomModel(), tasks.load(name))[name].score.mean == 0.0


def test_programs_are_run_by_who_is_passed_in() -> None:
    items = [
        Item("a", "def f():\n", meta={"test": "def check(f): pass", "entry_point": "f"}),
        Item("b", "x", meta={"test": ""}),
    ]
    sources: list[str] = []

    class Runner:
        def run(self, source: str, seconds: float, bytes: int) -> Any:
            sources.append(source)
            word = source.rstrip("\n").rpartition("print(")[2].strip("')")
            return SimpleNamespace(output=word if "check(f)" in source else "", error=None)

    found = evaluate(
        Scripted(lambda _: "    pass"), tasks.load("human_eval"), items={"human_eval": items}, runner=Runner()
    )
    assert [record.scores["passed"] for record in found["human_eval"].records] == [1.0, 0.0]
    assert len(sources) == 2


def test_progress_and_batches() -> None:
    seen: list[tuple[str, int, int]] = []
    found = evaluate(
        RandomModel(),
        [tasks.load("arithmetic"), tasks.load("word_problems")],
        limit=5,
        batch=2,
        on_item=lambda record, done, total: seen.append((record.id, done, total)),
    )
    assert seen == [(record.id, n + 1, 5) for n, record in enumerate(found["arithmetic"].records)]
    assert len({record.meta["digits"] for record in found["arithmetic"].records}) > 1, "a sample of all, not the first"
    assert list(found.results) == ["arithmetic", "word_problems"]
    one = evaluate(RandomModel(), tasks.load("arithmetic"), limit=5, batch=1)["arithmetic"]
    assert replace(one, seconds=0) == replace(found["arithmetic"], seconds=0), "batches change nothing"
    with pytest.raises(ValueError, match="start at 1"):
        evaluate(RandomModel(), tasks.load("arithmetic"), limit=0)


def test_a_model_that_leaves_pairs_out_is_said() -> None:
    class Lazy(RandomModel):
        def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
            return super().loglikelihood(pairs[:-1])

    items = [Item(str(n), "x", choices=("a", "b", "c", "d"), right=0) for n in range(2)]
    with pytest.raises(ValueError, match="the model scored 7 of 8 pairs"):
        evaluate(Lazy(), tasks.load("arc_easy"), items={"arc_easy": items})


class NoRunner:
    def run(self, source: str, seconds: float, bytes: int) -> Any:
        raise AssertionError("nothing is run")


def test_items_that_do_not_fit_their_task() -> None:
    for name, item, words in (
        ("arc_easy", Item("a", "x", answer="y"), "item a has no choice that is right"),
        ("mmlu_mini", Item("a", "x", choices=("y",), right=0), "item a: .*no field 'options'; there are prompt"),
        ("stories", Item("a", "x"), "item a has no rules"),
        ("stories", Item("a", "x", meta={"rules": [{"rule": "rhymes"}]}), "item a: rules: unknown 'rhymes'"),
        ("human_eval", Item("a", "x"), "item a has no test"),
        ("wikitext2", Item("a", ""), "item a is empty"),
    ):
        with pytest.raises(DataError, match=words):
            evaluate(RandomModel(), tasks.load(name), items={name: [item]}, runner=NoRunner())


# --- results


def test_results_read_back_equal() -> None:
    found = evaluate(
        RandomModel(), [tasks.load(name) for name in ("arithmetic", "stories", "word_problems")], limit=7, name="r"
    )
    assert Results.from_json(found.to_json()) == found
    assert json.loads(found.to_json())["schema"] == 1
    table = found.to_markdown().splitlines()
    assert len(table) == 5
    assert table[4].startswith("| word_problems | exact | 0 | skipped: task word_problems: needs the generator")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "schema None"),
        ('{"schema": 2, "results": []}', "schema 2, and this version of tinyeval reads schema 1"),
        ('{"schema": 1, "results": [{"task": "a"}]}', "not a result of schema 1"),
        ('{"schema": 1, "results": [{"task": "a", "colour": 1}]}', "unknown keys: colour"),
    ],
)
def test_other_files_are_one_line(text: str, words: str) -> None:
    with pytest.raises(ResultError) as refused:
        Results.from_json(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_groups_are_sorted_and_hold_what_has_no_key() -> None:
    found = evaluate(RandomModel(), tasks.load("arithmetic"), limit=1)["arithmetic"]
    records = tuple(
        Record(str(n), {"exact": float(n)}, meta={} if n == 3 else {"k": k}) for n, k in enumerate([10, 9, "a", 0])
    )
    assert replace(found, records=records).grouped("k") == {
        (None,): (3.0, 1),
        (9,): (1.0, 1),
        (10,): (0.0, 1),
        ("a",): (2.0, 1),
    }


# --- comparing


def of(right: Sequence[int], name: str) -> Results:
    """Results of a model that solves the items of `right`."""
    items = [Item(str(n), str(n), answer="7") for n in range(200)]
    model = Scripted(lambda prompt: "7" if int(prompt.rpartition("\n\n")[2].split()[0]) in right else "8")
    return evaluate(model, tasks.load("arithmetic"), items={"arithmetic": items}, name=name)


def test_two_models_by_hand() -> None:
    first, second = of(range(100), "a"), of(range(2, 94), "b")
    (found,) = compare(first, second)
    assert (found.mean, found.baseline_mean) == (0.5, 0.46)
    assert found.difference.mean == pytest.approx(0.04)
    assert found.difference.p == pytest.approx(2 / 2**8), "eight items that only the first solved"
    assert found.verdict == "better"
    assert compare(second, first)[0].verdict == "worse"
    assert compare(first, first)[0].verdict == "not distinguishable"
    assert compare(first, of(range(97), "c"))[0].verdict == "not distinguishable"


def test_lower_is_better_where_it_is() -> None:
    items = [Item(str(n), "a" * (5 + n)) for n in range(30)]

    def model(bits: float) -> Results:
        return evaluate(
            Scripted(str, lambda _, text: -bits * len(text)), tasks.load("wikitext2"), items={"wikitext2": items}
        )

    assert compare(model(1.0), model(1.1))[0].verdict == "better"
    with pytest.raises(Incomparable, match="nothing to pair; compare bits_per_byte instead"):
        compare_task(model(1.0)["wikitext2"], model(1.1)["wikitext2"], "perplexity")


def test_what_does_not_compare_is_said() -> None:
    found = evaluate(RandomModel(), tasks.load("arithmetic"), limit=20)
    other = evaluate(RandomModel(), tasks.load("arithmetic"), limit=20, seed=1)
    one, two = found["arithmetic"], other["arithmetic"]
    with pytest.raises(Incomparable, match=r"not asked the same items \(seeds 0 and 7"):
        compare_task(one, replace(two, seed=7, records=two.records[:10]))
    with pytest.raises(Incomparable, match="are not the same task; evaluate both again"):
        compare_task(one, replace(one, version=2))
    with pytest.raises(Incomparable, match="has no acc"):
        compare_task(one, one, "acc")
    skipped = evaluate(RandomModel(), tasks.load("word_problems"))
    with pytest.raises(Incomparable, match="no task in common"):
        compare(skipped, skipped)


def test_perplexity_across_tokenizers_is_refused_and_bits_per_byte_offered() -> None:
    items = [Item("a", "some text"), Item("b", "and more")]

    class Words(RandomModel):
        tokenizer_id = "words"

        def pieces(self, text: str) -> list[str]:
            return text.split(" ")

    first, second = (
        evaluate(model, tasks.load("wikitext2"), items={"wikitext2": items})["wikitext2"]
        for model in (RandomModel(), Words())
    )
    assert first.scores["perplexity"].mean == pytest.approx(256)
    assert second.scores["perplexity"].mean == pytest.approx(256 ** (17 / 4))
    refusal = r"tokenizers \(characters, words\) do not compare; .*bits_per_byte instead: 8.0000 and 8.0000"
    with pytest.raises(Incomparable, match=refusal):
        compare_task(first, second, "perplexity")
    assert compare_task(first, second).p == 1.0
