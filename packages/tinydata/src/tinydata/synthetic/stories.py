"""Tiny stories from a grammar: a small world is drawn first, then told.

A story draws its people, object, places and plot once (`world`), and then, for each beat of the plot, one of several
paraphrases that only speak of what was drawn; so the object that is lost is the object that is found. The vocabulary is
a few hundred common words (as in TinyStories, arXiv 2305.07759), here with no model behind it: every sentence is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from tinydata.documents import Document
from tinydata.synthetic import story_words as words
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.more_story_plots import PLOTS
from tinydata.synthetic.story_plots import ENDINGS, MORAL_LEADS, OPENINGS, WAYS_HOME, Plot

# Raise it with every change that changes a byte of what `stories` yields.
VERSION = 1


class _Phrase(str):
    """Words that may also start a sentence."""

    __slots__ = ()

    @property
    def Capital(self) -> str:
        return self[0].upper() + self[1:]


class _Person(NamedTuple):
    name: str
    species: str
    kind: str
    he: str
    him: str
    his: str
    He: str
    His: str

    def __format__(self, specification: str) -> str:
        return self.name


class _Thing(NamedTuple):
    noun: str
    a: str
    the: str
    The: str


class _Food(NamedTuple):
    noun: str
    a: str

    def __format__(self, specification: str) -> str:
        return self.noun


class _Place(NamedTuple):
    at: str
    to: str


_PRONOUNS = {"she": ("she", "her", "her", "She", "Her"), "he": ("he", "him", "his", "He", "His")}


def stories(seed: int, count: int) -> Iterator[Document]:
    """The first `count` different stories of `seed`: 400 to 1,000 bytes each, the same in every Python version.

    A smaller count gives the beginning of a larger one. Memory grows by about 100 bytes a story, to tell them apart.
    """
    chance = Chance("stories", seed)
    told: set[bytes] = set()
    while len(told) < count:
        text = _tell(chance)
        digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
        if digest not in told:
            told.add(digest)
            yield Document(text, "stories")


def _tell(chance: Chance) -> str:
    plot = chance.choose(PLOTS)
    names = world(chance, plot)
    parts = [chance.choose(OPENINGS)]
    parts += [chance.choose(beat) for beat in plot.beats]
    has_moral = chance.happens(0.6)
    if chance.happens(0.6) or not has_moral:
        parts.append(chance.choose(ENDINGS if plot.ends_at_home else ENDINGS + WAYS_HOME))
    if has_moral:
        parts.append(chance.choose(MORAL_LEADS))
    return told(parts, names)


def told(parts: list[str], names: dict[str, object]) -> str:
    """The sentences with their names, and paragraphs where a `|` stands."""
    return " ".join(parts).format_map(names).replace("| ", "\n").replace(" |", "\n")


def world(chance: Chance, plot: Plot) -> dict[str, object]:
    """Everything that a sentence of the story may name, drawn for this plot."""
    hero = _person(chance, "")
    spot, other_spot, last_spot = chance.distinct(words.SPOTS, 3)
    fear, dare, relief = chance.choose(words.FEARS)
    baby, mother, call = chance.choose(words.BABIES)
    noise, where, cause = chance.choose(words.NOISES)
    plant, size = chance.choose(words.SEEDS)
    skill, success = chance.choose(words.SKILLS)
    at, place = chance.choose(words.PLACES)
    relative, relative_pronoun = chance.choose(words.FAMILY)
    return {
        "hero": hero,
        "friend": _person(chance, hero.name),
        "elder": _Person(relative, relative, relative, *_PRONOUNS[relative_pronoun]),
        "trait": chance.choose(words.TRAITS),
        "home": chance.choose(words.HOMES),
        "weather": chance.choose(words.WEATHERS),
        "time": chance.choose(words.TIMES),
        "place": _Place(f"{at} {place}", f"to {place}"),
        "thing": _thing(f"{chance.choose(words.COLOURS)} {(noun := chance.choose(plot.things))}", noun),
        "spot": _Phrase(spot),
        "other_spot": other_spot,
        "last_spot": last_spot,
        "high_spot": chance.choose(words.HIGH_SPOTS),
        "tool": chance.choose(words.REACHING_TOOLS),
        "food": _Food(*reversed(chance.choose(words.FOODS))),
        "fear": fear,
        "dare": dare,
        "relief": _Phrase(relief),
        "building": chance.choose(words.BUILDINGS),
        "weak": chance.choose(words.WEAK_MATERIALS),
        "strong": chance.choose(words.STRONG_MATERIALS),
        "baby": baby,
        "mother": mother,
        "call": call,
        "landmark": chance.choose(words.LANDMARKS),
        "noise": noise,
        "where": where,
        "cause": cause,
        "plant": plant,
        "size": size,
        "gift": _Phrase(chance.choose(words.GIFTS)),
        "skill": skill,
        "success": success,
        "plan": chance.choose(words.OUTDOOR_PLANS),
        "indoor": chance.choose(words.INDOOR_PLANS),
        "moral": chance.choose(plot.morals),
    }


def _person(chance: Chance, taken: str) -> _Person:
    """A child or an animal whose name is not `taken`."""
    pronoun = "she" if chance.happens(0.5) else "he"
    names = words.GIRLS if pronoun == "she" else words.BOYS
    name = chance.choose(names)
    if name == taken:
        name = names[(names.index(name) + 1) % len(names)]
    child = "girl" if pronoun == "she" else "boy"
    species = child if chance.happens(0.6) else chance.choose(words.ANIMALS)
    return _Person(name, species, f"a {chance.choose(words.SIZES)} {species}", *_PRONOUNS[pronoun])


def _thing(words_of_it: str, noun: str) -> _Thing:
    article = "an" if words_of_it[0] in "aeiou" else "a"
    return _Thing(noun, f"{article} {words_of_it}", f"the {words_of_it}", f"The {words_of_it}")
