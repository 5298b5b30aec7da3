"""Beginnings of stories and what any going-on must keep to (TinyStories, arXiv 2305.07759, judged by rules, not by a model).

The rules are necessary, not sufficient: a text that breaks one is no story, a text that keeps them all may still be dull.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tinyeval.items import Item

NAMES = ("Lily", "Tom", "Ben", "Mia", "Sam", "Anna", "Max", "Sue", "Tim", "Lucy", "Jack", "Ella")
KINDS = ("girl", "boy", "dog", "cat", "rabbit", "bear")
TRAITS = ("little", "kind", "curious", "brave", "shy", "happy")
PLACES = ("the park", "the garden", "a big forest", "the beach", "her room", "the farm", "the market")
FINDS = ("a red ball", "an old key", "a small box", "a lost kitten", "a shiny stone", "a letter", "a broken toy")


def stories(*, seed: int, items: int, words: int = 30) -> Iterator[Item]:
    """Beginnings; a story goes on for at least ``words`` words."""
    for number in range(items):
        chance = random.Random(f"stories {seed} {number}")
        name, found = chance.choice(NAMES), chance.choice(FINDS)
        start = f"Once upon a time, there was a {chance.choice(TRAITS)} {chance.choice(KINDS)} named {name}."
        prompt = f"{start} One day, {name} went to {chance.choice(PLACES)} and found {found}."
        rules = [
            {"rule": "words", "least": words},
            {"rule": "has_word", "word": name},
            {"rule": "no_loop"},
            {"rule": "distinct", "n": 2, "least": 0.6},
            {"rule": "ends_sentence"},
        ]
        yield Item(str(number), prompt, meta={"rules": rules})
