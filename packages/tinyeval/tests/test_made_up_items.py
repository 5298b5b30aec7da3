"""Grammar, facts, patterns, programs: enough different items, answers right by other means, chance for who knows nothing."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tinyeval import CopyingOracle, Item, RandomModel, Scripted, evaluate, tasks
from tinyeval.generators import GENERATORS, facts, grammar, patterns, programs
from tinyeval.sources import items_of

MADE = ("grammar", "facts", "patterns", "programs")


def key(item: Item) -> tuple[object, ...]:
    return item.prompt, item.choices


@pytest.mark.parametrize("name", MADE)
def test_there_are_five_hundred_different_items_the_same_every_time(name: str) -> None:
    items = items_of(tasks.load(name))
    assert len(items) >= 500
    assert len({key(item) for item in items}) > 0.97 * len(items)
    assert items == items_of(tasks.load(name))
    assert [key(item) for item in items] != [key(item) for item in items_of(tasks.load(name), seed=1)]
    assert list(GENERATORS[name](seed=0, items=3)) == items[:3]


@pytest.mark.parametrize(("name", "chance"), [("grammar", 0.5), ("facts", 0.25)])
def test_who_knows_nothing_is_at_chance(name: str, chance: float) -> None:
    found = evaluate(RandomModel(), name)[name]
    assert found.chance == chance
    for metric in ("acc", "acc_norm"):
        score = found.scores[metric]
        assert score.standard_error is not None
        assert abs(score.mean - chance) < 3 * score.standard_error


def test_copying_solves_no_pattern() -> None:
    for model in (CopyingOracle(least=2), RandomModel()):
        score = evaluate(model, "patterns")["patterns"].score
        assert score is not None
        assert score.mean < 0.05


def test_pairs_differ_in_one_place_and_the_first_is_right() -> None:
    for item in grammar(seed=0, items=400):
        good, bad = item.choices
        assert item.right == 0
        assert good != bad
        assert good[0].isupper()
        a, b = good.split(), bad.split()
        kind = item.meta["phenomenon"]
        if kind in ("word order", "order in questions"):
            assert Counter(map(str.lower, a)) == Counter(map(str.lower, b))
        else:
            assert len(a) == len(b)
            assert sum(x != y for x, y in zip(a, b, strict=True)) == 1
        if kind == "article":  # an independent look at the rule
            assert re.search(r" an [aeio]| a [^aeiou]", good)
            assert not re.search(r" an [aeio]| a [^aeiou]", bad)
        if kind == "agreement":
            noun, verb = a[1], a[2]
            assert noun.endswith("s") != verb.endswith("s")


def test_four_answers_of_which_one_is_right() -> None:
    capitals = {"France": "Paris", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi"}
    asked = 0
    for item in facts(seed=2, items=500):
        assert len(set(item.choices)) == 4
        assert item.right is not None
        answer = item.choices[item.right]
        country = item.prompt.removeprefix("What is the capital of ").removesuffix("?")
        if country in capitals:
            asked += 1
            assert answer == capitals[country]
        if item.meta["kind"] == "letter":
            assert ord(answer) == ord(item.prompt.removesuffix("?")[-1]) + 1
    assert asked > 4
    places = Counter(item.right for item in facts(seed=0, items=400))
    assert min(places.values()) > 60


def test_patterns_follow_from_their_examples() -> None:
    for item in patterns(seed=0, items=120):
        *shown, asked = item.prompt.split("\n")
        row, answer = asked.removesuffix(" ->").split(), item.answer.split()
        assert len(set(row)) == len(row)
        # where letters of the answer come from, counted from the nearer end, is the same in every example of one length
        for line in shown:
            given, found = (part.split() for part in line.split(" -> "))
            if len(given) == len(row):
                assert [given.index(letter) for letter in found] == [row.index(letter) for letter in answer]
    with pytest.raises(ValueError, match="3 to 8"):
        list(patterns(seed=0, items=1, lengths=[2]))


def test_programs_are_right_with_their_answer_and_not_without() -> None:
    for item in programs(seed=0, items=90):
        for body, passes in ((item.answer, True), ("    return None", False)):
            space: dict[str, object] = {}
            exec(f"{item.prompt}{body}\n\n{item.meta['test']}", space)  # text of our own
            check = space["check"]
            assert callable(check)
            try:
                check(space[item.meta["entry_point"]])
                held = True
            except AssertionError:
                held = False
            assert held == passes, item.prompt


def test_the_right_answers_are_scored_right() -> None:
    items = {item.prompt: item.answer for item in items_of(tasks.load("patterns"))}
    score = evaluate(Scripted(lambda prompt: f" {items[prompt]}\nb c -> "), "patterns")["patterns"].score
    assert score is not None
    assert score.mean == 1.0
