"""Documents of our own as a source of text, each judged before it is taken: problems with worked answers, chains of
conclusions, dialogues, lookups, scratchpads.

A generator of tinydata draws, and a checker that shares nothing with it reads the text back. What the checker finds fault with
is left out and counted ("refused by its checker"): there should be none, and one would be a defect of one of the two. Stories
claim nothing that could be checked. Tags such as `<think>` are the single tokens of that name where the tokenizer has them.

Which documents there are is a function of the parameters and of tinydata's generators. These have no version of their own, so
the description holds a hash of the first documents: other generators make another key, and prepared data is made anew.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from apps.common.synthetic_check import needle_fault, notes_fault, scratchpad_fault
from tinydata import CHAT_FORMATS, Document, SourceError, share_think
from tinydata.synthetic.arithmetic import MAX_STEPS
from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.asked_stories import asked_stories
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.dialogue_check import dialogue_fault
from tinydata.synthetic.dialogues import DIALOGUE_KINDS, MAX_TURNS, dialogues
from tinydata.synthetic.exercise import Form
from tinydata.synthetic.exercise_check import exercise_fault
from tinydata.synthetic.exercises import exercises
from tinydata.synthetic.logic import LOGIC_KINDS, MAX_HOPS, LogicKind, logic
from tinydata.synthetic.logic_check import logic_fault
from tinydata.synthetic.needle import needle
from tinydata.synthetic.noted_stories import noted_stories
from tinydata.synthetic.refinement import refinements
from tinydata.synthetic.refinement_check import refinement_fault
from tinydata.synthetic.scratchpads import LABELS, TASKS, scratchpads
from tinydata.synthetic.stories import stories
from tinydata.synthetic.story_check import story_fault

GeneratorName = Literal[
    "word_problems",
    "arithmetic",
    "logic",
    "facts",
    "dialogues",
    "instructions",
    "notes",
    "scratchpads",
    "needle",
    "stories",
    "asked_stories",
    "refinements",
]
Levels = tuple[int, int]
Judged = tuple[str, str | None]  # a text, and what is wrong with it
Draw = Callable[[int, int, Language, Levels], Iterator[Judged]]

REFUSED, REPEATED = "refused by its checker", "repeated"
WORKED: tuple[Form, ...] = ("hand", "calculator", "program")  # forms of a solution that show their steps
THINK = 0.5  # share of the dialogues that show their thoughts
_INSTRUCTIONS = tuple(kind for kind in DIALOGUE_KINDS if kind not in ("calculator", "search"))
_FIRST = 32  # documents that a generator is recognised by
_PATIENCE = 10_000  # repeated documents in a row before it is said that there is nothing more


@dataclass(frozen=True)
class Generator:
    """levels: what the fewest and most are when nothing is said; of: what they count; within: what they may be."""

    what: str
    draw: Draw
    of: str
    levels: Levels
    within: Levels
    spanish: bool = True
    tags: bool = True
    checked: bool = True


def _exercises(kinds: tuple[str, ...]) -> Draw:
    def draw(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
        for number, made in enumerate(exercises(seed, count, kinds, language, levels)):
            form = WORKED[number % len(WORKED)]
            solution = made.solution(form)
            yield f"{made.prompt(form)}{solution}", exercise_fault(made.question, solution)

    return draw


def _logic(kinds: tuple[LogicKind, ...]) -> Draw:
    def draw(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
        for made in logic(seed, count, kinds, language, levels):
            solution = made.solution("hand")
            yield f"{made.prompt('hand')}{solution}", logic_fault(made.question, solution)

    return draw


def _dialogues(kinds: tuple[str, ...]) -> Draw:
    def draw(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
        for made in dialogues(seed, count, kinds, language, levels):
            messages = share_think(made.messages, THINK, seed)
            parts = CHAT_FORMATS["chatml"].parts(messages, trusted=True)
            yield "".join(part.text for part in parts), dialogue_fault(messages)

    return draw


def _notes(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
    for made in noted_stories(seed, levels):
        text = "".join(text for text, _ in made.parts(noted=True))
        yield text, notes_fault(text)


def _scratchpads(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
    streams = [scratchpads(task, seed, levels) for task in TASKS]
    for stream in itertools.cycle(streams):
        ((question, worked),) = next(stream).pairs("plain")
        yield f"{question}{worked}", scratchpad_fault(f"{question}{worked}")


def _needles(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
    chance = Chance(f"needles {language} {levels[0]}-{levels[1]}", seed)
    for number in itertools.count():
        # each haystack has a stream of its own, so that lengths and depths differ between them
        stream = int.from_bytes(hashlib.sha256(f"needle {seed} {number}".encode()).digest()[:6], "big")
        made = needle(stream, chance.between(*levels), chance.random(), needles=chance.between(1, 3), language=language)
        text = f"{made.document}\n{made.question}\n{made.answer}"
        yield text, needle_fault(text)


def _stories(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
    for document in stories(seed, count):
        yield document.text, None


def _asked_stories(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
    for made in asked_stories(seed, count):
        text = made.document.text
        yield text, story_fault(text)


def _refinements(seed: int, count: int, language: Language, levels: Levels) -> Iterator[Judged]:
    for made in refinements(seed, count, "hand", ("words",), language, levels):
        yield f"{made.prompt}{made.better}", refinement_fault(made.prompt, made.better)


GENERATORS: MappingProxyType[str, Generator] = MappingProxyType(
    {
        "word_problems": Generator(
            "word problems, solved by hand, by calculator and by program in turn",
            _exercises(("words",)),
            "calculations",
            (1, MAX_STEPS),
            (1, MAX_STEPS),
        ),
        "arithmetic": Generator(
            "expressions and multiplications, in the same three forms",
            _exercises(("expression", "multiplication")),
            "calculations of an expression",
            (1, MAX_STEPS),
            (1, MAX_STEPS),
        ),
        "logic": Generator(
            "what is and is not a wug, with every step of the conclusion",
            _logic(LOGIC_KINDS),
            "hops",
            (1, 4),
            (1, MAX_HOPS),
        ),
        "facts": Generator(
            "who does what to whom, and a question that takes several of the facts",
            _logic(("people",)),
            "hops",
            (1, 3),
            (1, MAX_HOPS),
        ),
        "dialogues": Generator(
            "conversations in ChatML, with calls of a calculator and a search",
            _dialogues(DIALOGUE_KINDS),
            "turns",
            (1, 3),
            (1, MAX_TURNS),
        ),
        "instructions": Generator(
            "the same, asking for things to be written by a rule",
            _dialogues(_INSTRUCTIONS),
            "turns",
            (1, 2),
            (1, MAX_TURNS),
        ),
        "notes": Generator(
            "who carries what where, with a note behind every sentence",
            _notes,
            "sentences",
            (3, 8),
            (2, 64),
            spanish=False,
        ),
        "scratchpads": Generator(
            "additions, parities and sortings, state by state",
            _scratchpads,
            "digits, bits or numbers",
            (1, 8),
            (1, len(LABELS) - 1),
        ),
        "needle": Generator(
            "a code somewhere in a long text, and the question for it", _needles, "words", (40, 120), (40, 4096)
        ),
        "stories": Generator(
            "tiny stories", _stories, "nothing", (1, 1), (1, 1), spanish=False, tags=False, checked=False
        ),
        "asked_stories": Generator(
            "stories with the dialogue, twist, moral and words that their first line asks for",
            _asked_stories,
            "nothing",
            (1, 1),
            (1, 1),
            spanish=False,
            tags=False,
        ),
        "refinements": Generator(
            "word problems with an attempt, three of four wrong, and the better answer",
            _refinements,
            "calculations",
            (1, MAX_STEPS),
            (1, MAX_STEPS),
        ),
    }
)
assert tuple(GENERATORS) == get_args(GeneratorName)


class SyntheticText:
    """The first `documents` different documents of a generator; see `GENERATORS`.

    `.skipped` counts "refused by its checker" and "repeated". Raises SourceError, while iterating, where there are fewer.
    """

    def __init__(
        self, generator: str, documents: int, seed: int, language: Language, levels: Levels, name: str | None = None
    ) -> None:
        self.generator, self.number, self.seed, self.language, self.levels = (
            generator,
            documents,
            seed,
            language,
            levels,
        )
        self.name = name or generator
        self.skipped: dict[str, int] = {}

    def documents(self) -> Iterator[Document]:
        """Each text once, as `Document`s named `name`."""
        self.skipped = {}
        seen: set[bytes] = set()
        failed = 0
        tags = GENERATORS[self.generator].tags
        judged = self._judged(self.number)
        while len(seen) < self.number:
            try:
                text, fault = next(judged)
            except StopIteration:
                return
            except ValueError as error:
                raise SourceError(f"synthetic {self.generator}: {error}") from None
            digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
            if digest in seen:
                self.skipped[REPEATED] = self.skipped.get(REPEATED, 0) + 1
                failed += 1
                if failed > _PATIENCE:
                    raise SourceError(
                        f"synthetic {self.generator}: there are hardly more than {len(seen):,} different documents"
                    )
                continue
            failed = 0
            seen.add(digest)
            if fault is not None:
                self.skipped[REFUSED] = self.skipped.get(REFUSED, 0) + 1
                continue
            yield Document(text, self.name, allow_special=tags)

    def description(self) -> dict[str, object]:
        """Parameters, and a hash of the first documents."""
        found = hashlib.sha256()
        for text, fault in itertools.islice(self._judged(min(self.number, _FIRST)), _FIRST):
            found.update(f"{len(text)} {text} {fault is None} ".encode())
        return {
            "kind": "synthetic",
            "name": self.name,
            "licence": "MIT",
            "generator": self.generator,
            "documents": self.number,
            "seed": self.seed,
            "language": self.language,
            "levels": list(self.levels),
            "first": found.hexdigest(),
        }

    def _judged(self, count: int) -> Iterator[Judged]:
        return GENERATORS[self.generator].draw(self.seed, count, self.language, self.levels)
