"""Python functions of one line from what they are to do, with tests: the smallest thing that can be called writing code.

def add_7(number):
    \"\"\"Return number plus 7.\"\"\"
    return number + 7                       <- to be written; run with the item's tests by whoever passes a sandbox in
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tinyeval.items import Item

NUMBERS = ("number", "n", "x", "value", "a", "count")
TEXTS = ("text", "word", "name", "s", "line", "title")
NAMES = ("", "get_", "find_", "my_", "do_")  # begin those of functions
LISTS = ("numbers", "values", "items", "xs", "scores", "data")


class Asked(NamedTuple):
    """A function's name, its arguments, what it returns in words and as an expression, and (arguments, value) to test it on."""

    name: str
    arguments: str
    words: str
    expression: str
    tests: list[tuple[tuple[Any, ...], Any]]


def programs(*, seed: int, items: int) -> Iterator[Item]:
    """Items of each kind in turn; answer: the line that is missing; meta: kind, test, entry_point."""
    chance = random.Random(f"programs {seed}")
    posed: set[str] = set()
    for number, (kind, make) in enumerate(itertools.islice(itertools.cycle(_KINDS.items()), items)):
        for _ in range(50):  # a kind has some hundreds of different questions
            asked = make(chance)
            asked = asked._replace(name=chance.choice(NAMES) + asked.name)
            prompt = f'def {asked.name}({asked.arguments}):\n    """Return {asked.words}."""\n'
            if prompt not in posed:
                break
        posed.add(prompt)
        lines = [f"    assert candidate{_call(given)} == {value!r}" for given, value in asked.tests]
        test = "\n".join(["def check(candidate):", *lines])
        meta = {"kind": kind, "test": test, "entry_point": asked.name}
        yield Item(str(number), prompt, answer=f"    return {asked.expression}", meta=meta)


def _call(given: tuple[Any, ...]) -> str:
    return f"({', '.join(map(repr, given))})"


def _of_number(chance: random.Random, name: str, words: str, expression: str, value: Callable[[int], Any]) -> Asked:
    """words and expression with {} for the argument."""
    argument = chance.choice(NUMBERS)
    tests = [((one,), value(one)) for one in (0, 3, chance.randint(4, 90), -chance.randint(1, 9))]
    return Asked(name, argument, words.format(argument), expression.format(argument), tests)


def _plus(chance: random.Random) -> Asked:
    k = chance.randint(2, 99)
    return _of_number(chance, f"add_{k}", f"{{}} plus {k}", f"{{}} + {k}", lambda one: one + k)


def _minus(chance: random.Random) -> Asked:
    k = chance.randint(2, 99)
    return _of_number(chance, f"subtract_{k}", f"{{}} minus {k}", f"{{}} - {k}", lambda one: one - k)


def _times(chance: random.Random) -> Asked:
    k = chance.randint(2, 99)
    return _of_number(chance, f"multiply_by_{k}", f"{{}} multiplied by {k}", f"{{}} * {k}", lambda one: one * k)


def _divisible(chance: random.Random) -> Asked:
    k = chance.randint(2, 9)
    words, expression = f"whether {{}} can be divided by {k}", f"{{}} % {k} == 0"
    return _of_number(chance, f"is_divisible_by_{k}", words, expression, lambda one: one % k == 0)


def _larger(chance: random.Random) -> Asked:
    k = chance.randint(2, 60)
    words = f"whether {{}} is larger than {k}"
    return _of_number(chance, f"is_larger_than_{k}", words, f"{{}} > {k}", lambda one: one > k)


def _two(chance: random.Random) -> Asked:
    first, second = chance.sample(NUMBERS, 2)
    name, words, expression, value = chance.choice(_OF_TWO)
    tests = [((a, b), value(a, b)) for a, b in ((2, 5), (9, 4), (chance.randint(10, 50), chance.randint(1, 9)))]
    return Asked(name, f"{first}, {second}", words.format(first, second), expression.format(first, second), tests)


_OF_TWO: tuple[tuple[str, str, str, Callable[[int, int], Any]], ...] = (
    ("add", "the sum of {} and {}", "{} + {}", lambda a, b: a + b),
    ("multiply", "the product of {} and {}", "{} * {}", lambda a, b: a * b),
    ("larger", "the larger of {} and {}", "max({}, {})", max),
    ("smaller", "the smaller of {} and {}", "min({}, {})", min),
    ("difference", "{} minus {}", "{} - {}", lambda a, b: a - b),
)


def _text(chance: random.Random) -> Asked:
    argument = chance.choice(TEXTS)
    name, words, expression, value = chance.choice(_OF_TEXT)
    tests = [((one,), value(one)) for one in ("cat", "Hello", chance.choice(("river", "Stone", "garden")))]
    return Asked(name, argument, words.format(argument), expression.format(argument), tests)


_OF_TEXT: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("upper", "{} in capital letters", "{}.upper()", str.upper),
    ("lower", "{} in small letters", "{}.lower()", str.lower),
    ("length", "the number of characters in {}", "len({})", len),
    ("backwards", "{} written backwards", "{}[::-1]", lambda text: text[::-1]),
    ("first", "the first character of {}", "{}[0]", lambda text: text[0]),
    ("last", "the last character of {}", "{}[-1]", lambda text: text[-1]),
)


def _repeated(chance: random.Random) -> Asked:
    argument, k = chance.choice(TEXTS), chance.randint(2, 9)
    tests = [((one,), one * k) for one in ("ab", "x", chance.choice(("no", "yes", "la")))]
    return Asked(f"repeat_{k}", argument, f"{argument} repeated {k} times", f"{argument} * {k}", tests)


def _list(chance: random.Random) -> Asked:
    argument = chance.choice(LISTS)
    name, words, expression, value = chance.choice(_OF_LIST)
    given = ([3, 1, 2], [7], [chance.randint(1, 50) for _ in range(5)])
    return Asked(
        name, argument, words.format(argument), expression.format(argument), [((one,), value(one)) for one in given]
    )


_OF_LIST: tuple[tuple[str, str, str, Callable[[list[int]], Any]], ...] = (
    ("total", "the sum of {}", "sum({})", sum),
    ("largest", "the largest of {}", "max({})", max),
    ("smallest", "the smallest of {}", "min({})", min),
    ("in_order", "{} in increasing order", "sorted({})", sorted),
    ("count", "the number of elements in {}", "len({})", len),
    ("first", "the first element of {}", "{}[0]", lambda one: one[0]),
)

_KINDS: Mapping[str, Callable[[random.Random], Asked]] = MappingProxyType(
    {
        "plus": _plus,
        "minus": _minus,
        "times": _times,
        "divisible": _divisible,
        "larger": _larger,
        "two numbers": _two,
        "text": _text,
        "repeated text": _repeated,
        "list": _list,
    }
)
