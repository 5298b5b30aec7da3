"""Stories to order: the line before a story says which features it is to have and which words it is to use, and it has them (as
TinyStories-Instruct, arXiv 2305.07759, here by construction).

    Write a story with dialogue, a twist and a moral. Use the words ball and hill.
    Once there was a small fox called Tom. ...

    dialogue   two people talk to each other
    twist      somebody is sure of something that turns out to be otherwise
    moral      the last sentence says what was learned

A twist or a moral that was not asked for is not there; people may talk in any story. `story_check` reads the line and the story
and shares nothing with what wrote them but the list of words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from tinydata.documents import Document
from tinydata.synthetic import story_words as words
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.more_story_plots import PLOTS
from tinydata.synthetic.stories import told, world
from tinydata.synthetic.story_plots import ENDINGS, MORAL_LEADS, OPENINGS, WAYS_HOME

FEATURES = ("dialogue", "twist", "moral")
WORDS_ASKED = 2

_NAMED = {"dialogue": "dialogue", "twist": "a twist", "moral": "a moral"}
_ORDERS = tuple(chosen for count in range(len(FEATURES) + 1) for chosen in combinations(FEATURES, count))

_EXCHANGES = (
    'Later, {friend} and {hero} sat together. "Shall we play again tomorrow?" asked {friend}. "Yes, please," said {hero}.',
    'Later, {friend} came to see {hero}. "Are you happy now?" asked {hero}. "I am very happy," said {friend}.',
    'Later, {hero} and {friend} sat together. "Will you tell me a story?" asked {friend}. "I know a good one," said {hero}.',
    'Later, {friend} came to see {hero}. "What was the best part today?" asked {hero}. "To play with you," said {friend}.',
)
# What is strange, what the hero believes, and what was really the case; {believed} and {real} are never the same.
_TWISTS = (
    (
        "relatives",
        "That morning, there was a present at the door. {hero} {was_sure} that it came from {hero.his} {believed}.",
        "In the end, {hero} found out about the present. It did not come from {hero.his} {believed} at all. "
        "It came from {hero.his} {real}!",
    ),
    (
        "animals",
        "That day, there were small steps in the mud next to the door. {hero} {was_sure} that they came from {believed}.",
        "In the end, {hero} found out about the small steps. They did not come from {believed} at all. They came from {real}!",
    ),
    (
        "animals",
        "That day, there was a strange song in the air. {hero} {was_sure} that it came from {believed}.",
        "In the end, {hero} found out about the strange song. It did not come from {believed} at all. It came from {real}!",
    ),
    (
        "toys",
        "That day, there was a closed box on the table. {hero} {was_sure} that it had {believed} in it.",
        "In the end, {hero} found out about the closed box. It did not have {believed} in it at all. It had {real} in it!",
    ),
)
_ASKED_FOR = frozenset(
    noun.split()[-1] for group in (words.TOYS, words.LIGHT_TOYS, words.ANIMALS, words.WEAK_MATERIALS) for noun in group
) | frozenset(
    (*words.TRAITS, *words.COLOURS, "boy", "girl", "house", "hill", "river", "sea", "road", "garden", "forest")
)


@dataclass(frozen=True, slots=True)
class AskedStory:
    """features: those of FEATURES that are asked for, in that order; words: those to be used; text: the story."""

    features: tuple[str, ...]
    words: tuple[str, ...]
    text: str

    @property
    def prompt(self) -> str:
        """The line that asks for it."""
        named = _listed([_NAMED[feature] for feature in self.features])
        return f"Write a story{' with ' + named if named else ''}. Use the words {_listed(list(self.words))}.\n"

    @property
    def document(self) -> Document:
        """Prompt and story as one text."""
        return Document(self.prompt + self.text, "asked stories")


def asked_stories(seed: int, count: int) -> Iterator[AskedStory]:
    """The first `count` different stories of `seed`, every set of features in turn, the same in every Python version.

    A smaller count gives the beginning of a larger one. Memory grows by about 100 bytes a story, to tell them apart.
    """
    chance = Chance("asked stories", seed)
    known: set[bytes] = set()
    while len(known) < count:
        story = _story(chance, _ORDERS[len(known) % len(_ORDERS)])
        digest = hashlib.blake2b(story.text.encode(), digest_size=12).digest()
        if digest not in known and len(story.words) == WORDS_ASKED:
            known.add(digest)
            yield story


def _story(chance: Chance, features: tuple[str, ...]) -> AskedStory:
    plot = chance.choose(PLOTS)
    names = world(chance, plot)
    belief, reveal = _twist(chance, names)
    parts = [chance.choose(OPENINGS)]
    parts += [belief] if "twist" in features else []
    parts += [chance.choose(beat) for beat in plot.beats]
    parts += [reveal] if "twist" in features else []
    parts += [chance.choose(_EXCHANGES)] if "dialogue" in features else []
    parts.append(chance.choose(ENDINGS if plot.ends_at_home or len(features) > 1 else ENDINGS + WAYS_HOME))
    parts += [chance.choose(MORAL_LEADS)] if "moral" in features else []
    text = told(parts, names)
    able = sorted(_ASKED_FOR.intersection(re.findall("[A-Za-z]+", text)))
    return AskedStory(features, tuple(chance.distinct(able, min(WORDS_ASKED, len(able)))), text)


def _twist(chance: Chance, names: dict[str, object]) -> tuple[str, str]:
    """Belief and reveal; fills in `names` what they speak of."""
    kind, belief, reveal = chance.choose(_TWISTS)
    if kind == "relatives":
        found = [relative for relative, _ in chance.distinct(words.FAMILY, 2)]
    else:
        found = [_a(noun) for noun in chance.distinct(words.ANIMALS if kind == "animals" else words.TOYS, 2)]
    names |= {"believed": found[0], "real": found[1], "was_sure": chance.choose(("was sure", "thought"))}
    return belief, reveal


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
