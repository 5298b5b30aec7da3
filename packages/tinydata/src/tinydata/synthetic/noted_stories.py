"""Stories of people who carry things about, with a note behind every sentence: where somebody is now, and with what.

    Ana went to the hall.
    <note>Ana hall nothing</note>
    Ana took the ball.
    <note>Ana hall ball</note>
    Ana went to the barn.
    <note>Ana barn ball</note>
    Where is the ball?
    barn

Notes say what no sentence says alone (self-notes, arXiv 2305.00833); they and the answer are what is learned, sentences and
question never (`encode_parts`). Nobody carries two things. Only things that somebody took are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinydata.synthetic.chance import Chance

PEOPLE = ("Ana", "Bo", "Cy", "Dee")
PLACES = ("attic", "barn", "cellar", "garden", "hall", "kitchen")
THINGS = ("ball", "book", "key", "lamp")
TAGS = ("<note>", "</note>")
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class NotedStory:
    """Sentences and question, each a line with its end, a note for each sentence, and the answer."""

    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    question: str
    answer: str

    def parts(self, noted: bool) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is learned: without notes, the answer only."""
        if not noted:
            return [("".join(self.sentences) + self.question, False), (self.answer, True)]
        found = []
        for sentence, note in zip(self.sentences, self.notes, strict=True):
            found += [(sentence, False), (f"{TAGS[0]}{note}{TAGS[1]}", True), ("\n", False)]
        return [*found, (self.question, False), (self.answer, True)]


def noted_stories(seed: int, sizes: tuple[int, int]) -> Iterator[NotedStory]:
    """Stories without end, the same in every Python version; sizes: fewest and most sentences, each number as often.

    Raises ValueError for fewer than two: nothing could have been taken.
    """
    if not 2 <= sizes[0] <= sizes[1]:
        raise ValueError(f"noted_stories: {sizes[0]} to {sizes[1]} sentences; there must be two at least")
    return _drawn(Chance(f"noted stories {sizes[0]}-{sizes[1]}", seed), sizes)


def _drawn(chance: Chance, sizes: tuple[int, int]) -> Iterator[NotedStory]:
    while True:
        size, world = chance.between(*sizes), _World(chance)
        # without a thing that was taken there is nothing to ask
        while not world.known:
            world = _World(chance)
            lines = [world.happening() for _ in range(size)]
        asked = chance.choose([thing for thing in THINGS if thing in world.known])
        sentences, notes = zip(*lines, strict=True)
        yield NotedStory(sentences, notes, f"Where is the {asked}?\n", world.whereabouts(asked))


@dataclass
class _World:
    """Who is where with what, and where things lie that somebody took and dropped."""

    chance: Chance
    places: dict[str, str] = field(default_factory=dict)  # of people
    held: dict[str, str] = field(default_factory=dict)  # person -> thing
    lying: dict[str, str] = field(default_factory=dict)  # thing -> place

    @property
    def known(self) -> set[str]:
        return {*self.held.values(), *self.lying}

    def whereabouts(self, thing: str) -> str:
        holder = next((person for person, held in self.held.items() if held == thing), None)
        return self.lying[thing] if holder is None else self.places[holder]

    def happening(self) -> tuple[str, str]:
        """What happens next, and the note about it."""
        person = self.chance.choose(PEOPLE)
        place = self.places.get(person)
        within_reach = [
            thing for thing in THINGS if thing not in self.held.values() and self.lying.get(thing, place) == place
        ]
        if place is not None and person in self.held and self.chance.happens(0.4):
            thing = self.held.pop(person)
            self.lying[thing] = place
            return f"{person} dropped the {thing}.\n", f"{self._of(person)}, {thing} {place}"
        if place is not None and person not in self.held and within_reach and self.chance.happens(0.6):
            thing = self.held[person] = self.chance.choose(within_reach)
            self.lying.pop(thing, None)
            return f"{person} took the {thing}.\n", self._of(person)
        self.places[person] = self.chance.choose([other for other in PLACES if other != place])
        return f"{person} went to the {self.places[person]}.\n", self._of(person)

    def _of(self, person: str) -> str:
        return f"{person} {self.places[person]} {self.held.get(person, NOTHING)}"
