"""Instructions whose obedience a program can check (IFEval, arXiv 2311.07911), small enough for a tiny model.

Each item says what is asked in words and, in `meta`, as the rules of `scoring.rules`; an item has one to three of them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tinyeval.items import Item

TOPICS = (
    "a cat",
    "the sea",
    "a small house",
    "rain",
    "a red apple",
    "a good friend",
    "the moon",
    "a long walk",
    "bread",
)
"""The last word of each must come up: letters at random keep no such rule."""
WORDS = ("river", "green", "happy", "stone", "always", "garden", "seven", "bird", "light", "under")
Rules = list[dict[str, Any]]


def instructions(*, seed: int, items: int) -> Iterator[Item]:
    """Items of each kind in turn."""
    chance = random.Random(f"instructions {seed}")
    for number, (kind, make) in enumerate(itertools.islice(itertools.cycle(_KINDS.items()), items)):
        prompt, rules = make(chance)
        yield Item(str(number), prompt, meta={"kind": kind, "rules": rules})


def _topic(chance: random.Random) -> tuple[str, dict[str, Any]]:
    topic = chance.choice(TOPICS)
    return topic, {"rule": "has_word", "word": topic.rpartition(" ")[2]}


def _word(chance: random.Random) -> tuple[str, Rules]:
    (topic, about), word = _topic(chance), chance.choice(WORDS)
    rules = [about, {"rule": "has_word", "word": word}, {"rule": "words", "least": 4}]
    return f"Write a sentence about {topic} that has the word {word} in it.", rules


def _start(chance: random.Random) -> tuple[str, Rules]:
    (topic, about), word = _topic(chance), chance.choice(WORDS).capitalize()
    rules = [about, {"rule": "starts_with", "text": word}, {"rule": "words", "least": 4}]
    return f"Write a sentence about {topic}. Its first word is {word}.", rules


def _without(chance: random.Random) -> tuple[str, Rules]:
    (topic, about), word = _topic(chance), chance.choice(("the", "and", "is"))
    rules = [about, {"rule": "lacks_word", "word": word}, {"rule": "words", "least": 4}]
    return f"Write a sentence about {topic} without the word {word}.", rules


def _short(chance: random.Random) -> tuple[str, Rules]:
    (topic, about), most = _topic(chance), chance.randint(5, 9)
    return f"Write about {topic} in at most {most} words.", [about, {"rule": "words", "least": 2, "most": most}]


def _capitals(chance: random.Random) -> tuple[str, Rules]:
    topic, about = _topic(chance)
    rules = [about, {"rule": "upper_case"}, {"rule": "words", "least": 2}]
    return f"Write about {topic} in capital letters only.", rules


def _small(chance: random.Random) -> tuple[str, Rules]:
    topic, about = _topic(chance)
    rules = [about, {"rule": "lower_case"}, {"rule": "words", "least": 2}]
    return f"Write about {topic} in small letters only.", rules


def _list(chance: random.Random) -> tuple[str, Rules]:
    count, things = chance.randint(2, 4), chance.choice(("animals", "colours", "fruits", "names"))
    rules = [{"rule": "lines", "exactly": count}, {"rule": "each_line_starts_with", "text": "-"}]
    return f"List exactly {count} {things}, each on a line that starts with a dash.", rules


def _sentences(chance: random.Random) -> tuple[str, Rules]:
    (topic, about), count = _topic(chance), chance.randint(2, 3)
    return f"Write exactly {count} sentences about {topic}.", [about, {"rule": "sentences", "exactly": count}]


def _end(chance: random.Random) -> tuple[str, Rules]:
    (topic, about), word = _topic(chance), chance.choice(WORDS)
    rules = [about, {"rule": "ends_with", "text": f"{word}."}, {"rule": "words", "least": 4}]
    return f"Write a sentence about {topic}. End it with the word {word} and a full stop.", rules


_KINDS: Mapping[str, Callable[[random.Random], tuple[str, Rules]]] = MappingProxyType(
    {
        "word": _word,
        "start": _start,
        "without": _without,
        "short": _short,
        "capitals": _capitals,
        "small letters": _small,
        "list": _list,
        "sentences": _sentences,
        "end": _end,
    }
)
