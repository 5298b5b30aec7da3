"""Arithmetic problems with worked steps, each calculation written as a tool call and its result.

    Question: Mia has 12 boxes. Each one holds 7 apples. How many apples are there now?
    <think>Multiply 12 by 7: <calc>12*7</calc><result>84</result></think>
    Answer: 84

The tags are single special tokens, which is why these documents carry `allow_special`. All numbers are whole and not
negative, every division is exact, and a step uses the question's numbers and earlier results only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

from tinydata.documents import Document
from tinydata.synthetic.arithmetic_phrases import PHRASES, Language, Phrases, Variants
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.exercise import Exercise, Step
from tinydata.synthetic.story_words import BOYS, GIRLS

# Raise it with every change that changes a byte of what `arithmetic` yields.
VERSION = 1

MAX_STEPS = 4
_NAMES = GIRLS + BOYS


def arithmetic(seed: int, count: int, language: Language = "english") -> Iterator[Document]:
    """The first `count` different problems of `seed`, of 1 to 4 steps each, the same in every Python version.

    A smaller count gives the beginning of a larger one. Memory grows by about 100 bytes a problem, to tell them apart.
    Raises ValueError for a language that is not "english" or "spanish".
    """
    if language not in PHRASES:
        raise ValueError(f"arithmetic: unknown language {language!r}, expected one of {', '.join(PHRASES)}")
    chance = Chance(f"arithmetic {language}", seed)
    phrases = PHRASES[language]
    posed: set[bytes] = set()
    while len(posed) < count:
        problem = Draft(chance, language)
        steps = chance.between(1, MAX_STEPS)
        if chance.happens(1 / 3):
            exercise = problem.exercise(expression, steps)
        else:
            exercise = problem.exercise(chance.choose(WORD_PROBLEMS), steps)
        thoughts = f"<think>{exercise.thoughts()}</think>"
        text = f"{phrases.question}: {exercise.question}\n{thoughts}\n{phrases.answer}: {exercise.answer}"
        digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
        if digest not in posed:
            posed.add(digest)
            yield Document(text, "arithmetic", allow_special=True)


class Pose(Protocol):
    """Makes a problem of its kind out of what was drawn."""

    __name__: str

    def __call__(self, problem: Draft, steps: int, /) -> None: ...


class Draft:
    """The sentences and steps of one problem while it is drawn."""

    def __init__(self, chance: Chance, language: Language) -> None:
        self.chance, self.language = chance, language
        phrases = PHRASES[language]
        self.phrases: Phrases = phrases
        name, friend, third = chance.distinct(_NAMES, 3)
        (items, how_many), (others, _) = chance.distinct(phrases.items, 2)
        self.world: dict[str, object] = {
            "name": name,
            "friend": friend,
            "third": third,
            "items": items,
            "how_many": how_many,
            "others": others,
            "containers": chance.choose(phrases.containers),
        }
        self.sentences: list[str] = []
        self.steps: list[Step] = []

    def say(self, variants: Variants, **slots: object) -> None:
        self.sentences.append(self.chance.choose(variants).format(**(self.world | slots)))

    def calculate(self, explanations: Variants, a: int, operator: str, b: int) -> int:
        """Appends the step `a operator b`; its result is returned and is the answer so far."""
        value = {"+": a + b, "-": a - b, "*": a * b}[operator] if operator in "+-*" else a // b
        self.steps.append(Step(self.chance.choose(explanations).format(a=a, b=b), a, operator, b, value))
        return value

    def number(self) -> int:
        """2 or more: half of the numbers up to 20, most up to 100, some up to 999."""
        draw = self.chance.random()
        return self.chance.between(2, 20 if draw < 0.5 else 100 if draw < 0.85 else 999)

    def factor(self) -> int:
        return self.chance.between(2, 12)

    def exercise(self, pose: Pose, steps: int) -> Exercise:
        """The problem that `pose` makes of it, in about `steps` steps."""
        pose(self, steps)
        return Exercise(pose.__name__.strip("_"), " ".join(self.sentences), tuple(self.steps), self.language)


def _divisor(problem: Draft, value: int) -> int | None:
    """One of 2 to 12 that divides `value` into parts of at least 2, or None."""
    divisors = [divisor for divisor in range(2, 13) if value % divisor == 0 and value // divisor >= 2]
    return problem.chance.choose(divisors) if divisors else None


def expression(problem: Draft, steps: int) -> None:
    """(12 + 7) * 3 - 4: grown from the inside, each step on the value so far, on its left or right side."""
    chance = problem.chance
    value = problem.number()
    written, strength = str(value), 3  # how tightly the outermost operator binds: 1 sum, 2 product, 3 number
    for _ in range(steps):
        operator = chance.choose("+-*/" if value <= 500 else "+-/")
        divisor = _divisor(problem, value) if operator == "/" else None
        if operator == "/" and divisor is None:
            operator = "+"
        if divisor is not None:
            written, other, on_left = f"{_within(written, strength, 2)} / {divisor}", divisor, False
        elif operator == "*":
            other, on_left = problem.factor(), chance.happens(0.3)
            inner = _within(written, strength, 3 if on_left else 2)
            written = f"{other} * {inner}" if on_left else f"{inner} * {other}"
        elif operator == "-":
            other = problem.number()
            on_left = other >= value
            written = f"{other} - {_within(written, strength, 2)}" if on_left else f"{written} - {other}"
        else:
            other, on_left = problem.number(), chance.happens(0.3)
            written = f"{other} + {_within(written, strength, 2)}" if on_left else f"{written} + {other}"
        strength = 2 if operator in "*/" else 1
        left, right = (other, value) if on_left else (value, other)
        value = problem.calculate(("",), left, operator, right)
    problem.say(problem.phrases.expression, expression=written)


def _within(written: str, strength: int, needed: int) -> str:
    return written if strength >= needed else f"({written})"


def _change(problem: Draft, steps: int) -> None:
    """Somebody has some, gets more, gives away: a running total."""
    phrases = problem.phrases
    total = problem.number()
    problem.say(phrases.start, a=total)
    for _ in range(steps):
        if total >= 4 and problem.chance.happens(0.5):
            b = problem.chance.between(2, total - 2) if total > 4 else 2
            problem.say(phrases.loss, b=b)
            total = problem.calculate(phrases.loss_step, total, "-", b)
        else:
            b = problem.number()
            problem.say(phrases.gain, b=b)
            total = problem.calculate(phrases.gain_step, total, "+", b)
    problem.say(phrases.total_now)


def _groups(problem: Draft, steps: int) -> None:
    """Equal groups, then more or fewer, then perhaps shared equally."""
    phrases = problem.phrases
    a, b = problem.factor(), problem.chance.between(2, 30)
    problem.say(phrases.groups, a=a, b=b)
    total = problem.calculate(phrases.groups_step, a, "*", b)
    for step in range(1, steps):
        children = _divisor(problem, total) if step == steps - 1 else None
        if children is not None:
            problem.say(phrases.share, b=children)
            problem.calculate(phrases.share_step, total, "/", children)
            return
        if total >= 4 and problem.chance.happens(0.5):
            b = problem.chance.between(2, total - 2) if total > 4 else 2
            problem.say(phrases.groups_taken, b=b)
            total = problem.calculate(phrases.loss_step, total, "-", b)
        else:
            b = problem.number()
            problem.say(phrases.groups_added, b=b)
            total = problem.calculate(phrases.gain_step, total, "+", b)
    problem.say(phrases.groups_total)


def _shopping(problem: Draft, steps: int) -> None:
    """One or two things at a price; an even number of steps ends with the money that is left."""
    phrases = problem.phrases
    a, b = problem.factor(), problem.chance.between(2, 40)
    problem.say(phrases.price, a=a, b=b)
    total = problem.calculate(phrases.cost_step, a, "*", b)
    if steps >= 3:
        c, d = problem.factor(), problem.chance.between(2, 40)
        problem.say(phrases.second_price, c=c, d=d)
        second = problem.calculate(phrases.cost_step, c, "*", d)
        total = problem.calculate(phrases.sum_step, total, "+", second)
    if steps % 2 == 0:
        _take_from_more(problem, phrases.paid, phrases.change_step, total)
    else:
        problem.say(phrases.cost)


def _compare(problem: Draft, steps: int) -> None:
    """Times as many, and fewer than: two or three people together."""
    phrases = problem.phrases
    a, b = problem.chance.between(2, 50), problem.factor()
    problem.say(phrases.times_as_many, a=a, b=b)
    friend = problem.calculate(phrases.times_step, b, "*", a)
    if steps == 1:
        problem.say(phrases.has_how_many)
        return
    if steps == 2:
        problem.calculate(phrases.sum_step, a, "+", friend)
        problem.say(phrases.two_together)
        return
    fewer = problem.chance.between(2, max(2, friend - 2))
    problem.say(phrases.fewer, b=fewer)
    third = problem.calculate(phrases.fewer_step, friend, "-", fewer)
    if steps == 3:
        problem.calculate(phrases.sum_step, friend, "+", third)
        problem.say(phrases.two_together, name=problem.world["third"])
        return
    two = problem.calculate(phrases.sum_step, a, "+", friend)
    problem.calculate(phrases.sum_step, two, "+", third)
    problem.say(phrases.three_together)


def _travel(problem: Draft, steps: int) -> None:
    """One or two stretches at a speed; an even number of steps asks for the way that is left."""
    phrases = problem.phrases
    a, b = problem.chance.between(2, 120), problem.factor()
    problem.say(phrases.trip, a=a, b=b)
    total = problem.calculate(phrases.distance_step, a, "*", b)
    if steps >= 3:
        c, d = problem.chance.between(2, 120), problem.factor()
        problem.say(phrases.second_leg, c=c, d=d)
        second = problem.calculate(phrases.distance_step, c, "*", d)
        total = problem.calculate(phrases.sum_step, total, "+", second)
    if steps % 2 == 0:
        _take_from_more(problem, phrases.trip_length, phrases.left_step, total)
    else:
        problem.say(phrases.distance)


def _rectangle(problem: Draft, steps: int) -> None:
    """Area (1 step), perimeter (2), fence (3), and the money left after the fence (4)."""
    phrases = problem.phrases
    a, b = problem.chance.between(2, 60), problem.chance.between(2, 60)
    problem.say(phrases.rectangle, a=a, b=b)
    if steps == 1:
        problem.calculate(phrases.area_step, a, "*", b)
        problem.say(phrases.area)
        return
    half = problem.calculate(phrases.half_perimeter_step, a, "+", b)
    around = problem.calculate(phrases.perimeter_step, half, "*", 2)
    if steps == 2:
        problem.say(phrases.perimeter)
        return
    price = problem.factor()
    problem.say(phrases.fence, c=price)
    cost = problem.calculate(phrases.fence_step, around, "*", price)
    if steps == 3:
        problem.say(phrases.fence_cost)
    else:
        _take_from_more(problem, phrases.paid, phrases.change_step, cost)


def _take_from_more(problem: Draft, says: Variants, explains: Variants, total: int) -> None:
    """Out of a larger amount than `total`, what is left."""
    amount = total + problem.chance.between(2, 50)
    problem.say(says, b=amount)
    problem.calculate(explains, amount, "-", total)


WORD_PROBLEMS: tuple[Pose, ...] = (
    _change,
    _groups,
    _shopping,
    _compare,
    _travel,
    _rectangle,
)
