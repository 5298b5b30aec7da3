"""Facts that everybody knows, four answers each: what a small model remembers of its texts, not what it can work out.

The wrong answers are right ones of other questions of the same kind, so that each answer fits the question in form. There are
some 200 facts: of 500 items most facts are asked two or three times, each time among other wrong answers.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tinyeval.items import Item

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip


def _pairs(text: str) -> dict[str, str]:
    return dict(part.strip().split(": ") for part in text.split(",") if part.strip())


_FACTS: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "capital": (
            "What is the capital of {}?",
            _pairs(
                "France: Paris, Spain: Madrid, Italy: Rome, Germany: Berlin, England: London, Japan: Tokyo, China: Beijing, "
                "Russia: Moscow, Egypt: Cairo, Greece: Athens, Portugal: Lisbon, Austria: Vienna, Poland: Warsaw, "
                "Norway: Oslo, Sweden: Stockholm, Finland: Helsinki, Ireland: Dublin, Hungary: Budapest, Cuba: Havana, "
                "Peru: Lima, Chile: Santiago, Argentina: Buenos Aires, Canada: Ottawa, Kenya: Nairobi, Thailand: Bangkok, "
                "Turkey: Ankara, Denmark: Copenhagen, Belgium: Brussels, Iraq: Baghdad, Iran: Tehran"
            ),
        ),
        "opposite": (
            "What is the opposite of {}?",
            _pairs(
                "hot: cold, big: small, good: bad, up: down, left: right, day: night, black: white, old: young, fast: slow, "
                "happy: sad, open: closed, long: short, high: low, full: empty, light: dark, rich: poor, hard: soft, "
                "wet: dry, early: late, near: far, first: last, strong: weak, thick: thin, true: false, loud: quiet, "
                "clean: dirty, inside: outside, winter: summer, north: south, east: west, push: pull, love: hate, "
                "buy: sell, begin: end, question: answer"
            ),
        ),
        "young": (
            "What is a young {} called?",
            _pairs(
                "dog: puppy, cat: kitten, cow: calf, horse: foal, sheep: lamb, pig: piglet, bear: cub, duck: duckling, "
                "goat: kid, frog: tadpole, hen: chick, deer: fawn, swan: cygnet, goose: gosling, owl: owlet, kangaroo: joey"
            ),
        ),
        "sound": (
            "What does a {} do?",
            _pairs(
                "dog: bark, cow: moo, sheep: bleat, lion: roar, snake: hiss, bee: buzz, wolf: howl, duck: quack, "
                "cat: meow, frog: croak, owl: hoot, mouse: squeak, pig: oink, horse: neigh"
            ),
        ),
        "day": ("Which day comes after {}?", dict(zip(_DAYS, _DAYS[1:] + _DAYS[:1], strict=True))),
        "month": ("Which month comes after {}?", dict(zip(_MONTHS, _MONTHS[1:] + _MONTHS[:1], strict=True))),
        "number": ("Which number comes after {}?", dict(itertools.pairwise(_NUMBERS))),
        "letter": (
            "Which letter comes after {}?",
            dict(itertools.pairwise("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
        ),
        "kind": (
            "What kind of thing is a {}?",
            _pairs(
                "rose: flower, oak: tree, hammer: tool, violin: instrument, trout: fish, eagle: bird, chair: furniture, "
                "ruby: jewel, banana: fruit, carrot: vegetable, shirt: garment, bus: vehicle, spider: animal, "
                "pistol: weapon, triangle: shape, dollar: currency, village: settlement, soup: dish"
            ),
        ),
        "place": (
            "Where does a {} work?",
            _pairs(
                "teacher: in a school, nurse: in a hospital, farmer: on a farm, sailor: on a ship, baker: in a bakery, "
                "waiter: in a restaurant, pilot: in an aeroplane, miner: in a mine, judge: in a court, "
                "librarian: in a library, gardener: in a garden, priest: in a church"
            ),
        ),
    }
)


def facts(*, seed: int, items: int) -> Iterator[Item]:
    """Items with four choices, the right one anywhere; meta: kind. Every fact is asked before one is asked again."""
    known = [(kind, subject) for kind, (_, pairs) in _FACTS.items() for subject in pairs]
    chance = random.Random(f"facts {seed}")
    left: list[tuple[str, str]] = []
    for number in range(items):
        if not left:
            left = chance.sample(known, len(known))
        kind, subject = left.pop()
        asks, pairs = _FACTS[kind]
        answer = pairs[subject]
        wrong = sorted(set(pairs.values()) - {answer, subject})
        choices = chance.sample([answer, *chance.sample(wrong, 3)], 4)
        yield Item(
            str(number), asks.format(subject), choices=tuple(choices), right=choices.index(answer), meta={"kind": kind}
        )
