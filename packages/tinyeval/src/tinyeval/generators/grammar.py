"""Pairs of sentences of which one is grammatical: what BLiMP (arXiv 1912.00582) asks, in the words of a child's story.

Each phenomenon in turn; within one, the words are drawn. The two sentences of a pair differ in one place and have the same
words otherwise. Where the right one is the shorter in some pairs, it is the longer in as many others: length alone says
nothing.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from tinyeval.items import Item

NOUNS = ("dog", "cat", "boy", "girl", "bird", "farmer", "teacher", "horse", "rabbit", "king")
VERBS = ("walk", "sleep", "play", "jump", "sing", "read", "dream", "eat", "laugh", "wait")  # + s
PLACES = ("the trees", "the houses", "the river", "the garden", "the hills", "the door")
BOYS, GIRLS = ("Tom", "Ben", "Sam", "Max", "Tim", "Jack"), ("Lily", "Mia", "Anna", "Sue", "Lucy", "Ella")
THINGS = ("ball", "doll", "book", "cake", "hat", "shoe", "stone", "toy", "flower", "cup")
SEEN = ("saw", "hurt", "washed", "helped", "liked", "found")
ADJECTIVES = ("red", "small", "old", "happy", "big", "green", "young", "soft", "new", "cold")
VOWELS, CONSONANTS = (
    ("apple", "egg", "old tree", "island", "owl", "onion"),
    ("pear", "dog", "tree", "house", "bird", "cup"),
)
PARTICIPLES = (
    ("eaten", "ate"), ("gone", "went"), ("taken", "took"), ("seen", "saw"), ("written", "wrote"), ("broken", "broke"),
    ("sung", "sang"), ("begun", "began"), ("drunk", "drank"), ("swum", "swam"), ("done", "did"), ("flown", "flew"),
)  # fmt: skip
Pair = tuple[str, str]


def grammar(*, seed: int, items: int) -> Iterator[Item]:
    """Items with two choices, the first one right; meta: phenomenon. A pair comes again only where all have been asked."""
    chance = random.Random(f"grammar {seed}")
    asked: set[Pair] = set()
    for number, (name, make) in enumerate(itertools.islice(itertools.cycle(_PHENOMENA.items()), items)):
        for _ in range(50):
            pair = make(chance)
            if pair not in asked:
                break
        asked.add(pair)
        yield Item(str(number), choices=pair, right=0, meta={"phenomenon": name})


def _agreement(chance: random.Random) -> Pair:
    noun, verb, place = chance.choice(NOUNS), chance.choice(VERBS), chance.choice(PLACES)
    one, several = f"The {noun} {verb}s near {place}.", f"The {noun}s {verb} near {place}."
    if chance.random() < 0.5:
        return one, f"The {noun} {verb} near {place}."
    return several, f"The {noun}s {verb}s near {place}."


def _across(chance: random.Random) -> Pair:
    noun, verb, other = chance.choice(NOUNS), chance.choice(VERBS), chance.choice(NOUNS)
    if chance.random() < 0.5:
        start = f"The {noun} near the {other}s"
        return f"{start} {verb}s.", f"{start} {verb}."
    start = f"The {noun}s near the {other}"
    return f"{start} {verb}.", f"{start} {verb}s."


def _determiner(chance: random.Random) -> Pair:
    who, thing = chance.choice(BOYS + GIRLS), chance.choice(THINGS)
    seen, one, several = chance.choice(SEEN), *chance.choice((("this", "these"), ("that", "those")))
    if chance.random() < 0.5:
        return f"{who} {seen} {one} {thing}.", f"{who} {seen} {several} {thing}."
    return f"{who} {seen} {several} {thing}s.", f"{who} {seen} {one} {thing}s."


def _reflexive(chance: random.Random) -> Pair:
    seen, place = chance.choice(SEEN), chance.choice(PLACES)
    if chance.random() < 0.5:
        start = f"{chance.choice(BOYS)} {seen}"
        return f"{start} himself near {place}.", f"{start} herself near {place}."
    start = f"{chance.choice(GIRLS)} {seen}"
    return f"{start} herself near {place}.", f"{start} himself near {place}."


def _article(chance: random.Random) -> Pair:
    who, seen = chance.choice(BOYS + GIRLS), chance.choice(SEEN)
    if chance.random() < 0.5:
        thing = chance.choice(VOWELS)
        return f"{who} {seen} an {thing}.", f"{who} {seen} a {thing}."
    thing = chance.choice(CONSONANTS)
    return f"{who} {seen} a {thing}.", f"{who} {seen} an {thing}."


def _participle(chance: random.Random) -> Pair:
    who, (done, did) = chance.choice(BOYS + GIRLS), chance.choice(PARTICIPLES)
    when = chance.choice(("before", "today", "again", "too", "already"))
    if chance.random() < 0.5:
        return f"{who} has {done} {when}.", f"{who} has {did} {when}."
    # "done" alone is no past tense, so that neither form is always the right one
    return f"{who} {did} {when}.", f"{who} {done} {when}."


def _order(chance: random.Random) -> Pair:
    adjective, noun = chance.choice(ADJECTIVES), chance.choice(NOUNS)
    verb = chance.choice(VERBS)
    return f"The {adjective} {noun} {verb}s.", f"The {noun} {adjective} {verb}s."


def _after_helper(chance: random.Random) -> Pair:
    noun, verb, helper = chance.choice(NOUNS), chance.choice(VERBS), chance.choice(("can", "will", "must"))
    if chance.random() < 0.5:
        return f"The {noun} {helper} {verb}.", f"The {noun} {helper} {verb}s."
    return f"The {noun} often {verb}s.", f"The {noun} often {verb}."


def _pronoun(chance: random.Random) -> Pair:
    who, seen, place = chance.choice(BOYS + GIRLS), chance.choice(SEEN), chance.choice(PLACES)
    subject, other = chance.choice((("he", "him"), ("she", "her"), ("they", "them"), ("we", "us")))
    if chance.random() < 0.5:
        return f"{who} {seen} {other} near {place}.", f"{who} {seen} {subject} near {place}."
    return f"{subject.capitalize()} {seen} {who} near {place}.", f"{other.capitalize()} {seen} {who} near {place}."


def _question(chance: random.Random) -> Pair:
    noun, verb = chance.choice(NOUNS), chance.choice(VERBS)
    asks = chance.choice(("Where", "When", "Why"))
    return f"{asks} did the {noun} {verb}?", f"{asks} the {noun} did {verb}?"


_PHENOMENA: Mapping[str, Callable[[random.Random], Pair]] = MappingProxyType(
    {
        "agreement": _agreement,
        "agreement across a noun": _across,
        "determiner": _determiner,
        "reflexive": _reflexive,
        "article": _article,
        "participle": _participle,
        "word order": _order,
        "after a helping verb": _after_helper,
        "case of pronouns": _pronoun,
        "order in questions": _question,
    }
)
