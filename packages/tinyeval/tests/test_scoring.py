"""Scorers against cases worked by hand: numbers found and compared by value, choices, rules, and programs that only pretend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from tinyeval import Item
from tinyeval.scoring import choices
from tinyeval.scoring.answers import is_right, number_in, value
from tinyeval.scoring.code import passes
from tinyeval.scoring.rules import RULES, kept


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = 7 apples.", "7"),
        ("It is 12.\n#### 1,234\nThe end of 5.", "1,234"),
        ("#### 3\n#### 4", "4"),
        ("First 9. The answer is: $18.50 in all, not 20", "$18.50"),
        ("Answer: none", None),
        ("no number", None),
        ("-5", "-5"),
        ("10 - 3", "3"),
        ("<think>40 then 50</think>\nAnswer: <calc>6*7</calc><result>42</result>", None),
        ("<calc>6*7</calc><result>42</result> so it is 42", "42"),
        ("<code>print(3)</code><result>3</result>\nAnswer: 3", "3"),
        ("a half is 1/2", "1/2"),
        ("12,34", "34"),
        ("Respuesta: 8 manzanas", "8"),
    ],
)
def test_the_number_that_a_text_says(text: str, number: str | None) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("#### 1,024", "1024", True),
        ("#### 1024.0", "1,024", True),
        ("it is $18", "18", True),
        ("18.01", "18", False),
        ("181", "18", False),
        ("2/4", "0.5", True),
        ("", "0", False),
        ("1/0", "0", False),
    ],
)
def test_numbers_compare_by_value(text: str, answer: str, right: bool) -> None:
    assert is_right(text, answer, "number") is right


def test_other_rules_for_answers() -> None:
    assert is_right(" 7 and then 8", "7", "first_number")
    assert not is_right(" 78", "7", "first_number")
    assert is_right(" YES, since", "yes", "word")
    assert not is_right("yesterday", "yes", "word")
    assert not is_right("...", "yes", "word")
    assert is_right("<think>Mia is a wug.\nNo dax is a fep.</think>\nAnswer: no", "no", "word")
    assert not is_right("No. Answer: yes", "no", "word")
    assert is_right(" a  b\n", "a b", "exact")
    assert not is_right("a b c", "a b", "exact")
    with pytest.raises(ValueError, match="unknown 'fuzzy'"):
        is_right("1", "1", "fuzzy")
    assert value("x") is None


def test_a_checker_decides() -> None:
    class Kind:
        def equal(self, a: str, b: str) -> bool:
            return (a, b) == ("5", "5 km")

    assert is_right("#### 5", "5 km", "number", Kind())
    assert not is_right("nothing", "5 km", "number", Kind())


def test_choices_by_hand() -> None:
    # whole: -4 beats -6; per byte: -6/6 = -1 beats -4/2 = -2
    assert choices.accuracies([-4.0, -6.0], ["no", "maybe!"], 1) == {"acc": 0.0, "acc_norm": 1.0}
    assert choices.accuracies([-4.0, -6.0], ["no", "maybe!"], 0) == {"acc": 1.0, "acc_norm": 0.0}
    assert choices.accuracies([-6.0, -6.0], ["\u00e9", "ab"], 0) == {"acc": 0.5, "acc_norm": 0.5}, "two bytes each"
    assert choices.accuracies([-math.inf] * 3, ["a", "b", "c"], 0)["acc"] == pytest.approx(1 / 3)
    assert choices.accuracies([-1.0, -1.0, -2.0], ["a", "b", "c"], 2)["acc"] == 0.0
    with pytest.raises(ValueError, match="nan"):
        choices.accuracies([math.nan], ["a"], 0)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"rule": "words", "least": 2, "most": 3}, "It's fine.", "One two three four."),
        ({"rule": "words", "exactly": 1}, "Yes!", "Oh yes!"),
        ({"rule": "sentences", "exactly": 2}, "One. Two!", "One, two, and so on."),
        ({"rule": "lines", "exactly": 2}, "- a\n\n- b", "- a"),
        ({"rule": "each_line_starts_with", "text": "-"}, "- a\n  - b", "- a\nb"),
        ({"rule": "has_word", "word": "cat"}, "A Cat.", "cats"),
        ({"rule": "lacks_word", "word": "the"}, "then", "The end"),
        ({"rule": "equals", "to": "yes"}, " yes\n", "yes."),
        ({"rule": "starts_with", "text": "A"}, "  A b", "b A"),
        ({"rule": "ends_with", "text": "b."}, "a b.\n", "a b. c"),
        ({"rule": "upper_case"}, "A 1!", "A b"),
        ({"rule": "lower_case"}, "a 1!", "A b"),
        ({"rule": "ends_sentence"}, 'He said "no."', "He said"),
        ({"rule": "no_loop"}, "a b c a b c", "a b c a b c a b c"),
        ({"rule": "distinct", "n": 1, "least": 0.5}, "a b a b", "a a a b b b"),
    ],
)
def test_rules(rule: dict[str, Any], good: str, bad: str) -> None:
    assert kept(good, [rule]) == [True]
    assert kept(bad, [rule]) == [False]
    assert kept(" \n", [rule]) == [False], "nothing keeps no rule"


def test_every_rule_is_tried_above_and_unknown_ones_are_refused() -> None:
    assert len(RULES) == 14
    for rule, words in (
        ({"rule": "rhymes"}, "unknown 'rhymes'"),
        ({"rule": "words", "lest": 1}, "words does not take lest"),
    ):
        with pytest.raises(ValueError, match=words):
            kept("a", [rule])
    with pytest.raises(ValueError, match="starts_with does not take word"):
        kept("a", [{"rule": "starts_with", "word": "a"}])


@dataclass
class Ran:
    output: str
    error: str | None


class Runner:
    """Says what it is told to, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.source = answer, ""

    def run(self, source: str, seconds: float, bytes: int) -> Ran:
        self.source = source
        return self.answer(source)


def said_word(source: str) -> str:
    """The word that the last line of the program prints."""
    return source.rstrip("\n").rpartition("print(")[2].strip("')")


ITEM = Item("f", "def f():\n", meta={"test": "def check(f):\n    assert f() == 1", "entry_point": "f"})


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (lambda source: Ran(said_word(source) + "\n", None), True),
        (lambda source: Ran("noise\n" + said_word(source) + "\n", None), True),
        (lambda source: Ran(said_word(source) + "\n", "AssertionError"), False),
        (lambda source: Ran("", None), False),
        (lambda source: Ran(said_word(source) + "\nmore\n", None), False),
        (lambda source: Ran("0123456789abcdef\n", None), False),
    ],
)
def test_only_a_program_that_reached_its_end_passes(answer: Any, passed: bool) -> None:
    runner = Runner(answer)
    assert passes(ITEM, "    return 1", runner) is passed
    assert runner.source.startswith("def f():\n    return 1\n\ndef check(f):")
    assert "check(f)\n" in runner.source
