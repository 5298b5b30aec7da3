"""Short conversations whose answers can be checked: with a calculator, with a search, and with rules for what is written.

    calculator   What is 12 times 7?                    <calc>12*7</calc>, result 84, 12 times 7 is 84. And minus 4? ...
    search       Which river flows through Tolvik?      <search>Tolvik river</search>, results, The river Sella ...
    count        Write a sentence of exactly 6 words about a fox.
    capitals     Write in capitals: the shy fox sleeps.
    list         Name 3 animals in a numbered list.
    contains     Write a sentence with the word "river".

A search knows a tiny world, which is made up with the dialogue, so that what it says can only be had from it; one in six is for
a town that it knows nothing of, and the answer says so. Words of the assistant are our own: write them with `trusted=True`
(`chat_format`), then calls are tokens, and results are a tool's. `dialogue_check` reads the messages and agrees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tinydata.chat import ChatMessage
from tinydata.synthetic.arithmetic_phrases import PHRASES, Language
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.dialogue_phrases import DIALOGUE_PHRASES, DialoguePhrases
from tinydata.synthetic.everyday_words import EVERYDAY_WORDS
from tinydata.synthetic.story_words import BOYS, GIRLS

DIALOGUE_KINDS = ("calculator", "search", "count", "capitals", "list", "contains")
MAX_TURNS = 8
_PATIENCE = 10_000  # as in `exercises`
_SYLLABLES = (
    "Tol",
    "vik",
    "ra",
    "nes",
    "mar",
    "du",
    "lin",
    "gor",
    "sel",
    "ta",
    "bren",
    "ko",
    "hal",
    "vi",
    "stra",
    "mon",
)
_ASKED = ("inhabitants", "river", "mayor")  # of a town
_UNKNOWN = 1 / 6


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The messages, and of what kind each question of the user is."""

    kinds: tuple[str, ...]
    messages: tuple[ChatMessage, ...]
    language: Language = "english"


def dialogues(
    seed: int,
    count: int,
    kinds: Sequence[str] = DIALOGUE_KINDS,
    language: Language = "english",
    turns: tuple[int, int] = (1, 3),
) -> Iterator[Dialogue]:
    """The first `count` different dialogues of `seed`, the same in every Python version.

    turns: fewest and most questions; the first of each dialogue are of `kinds` in turn, the others of any of them.
    Raises ValueError for other kinds, languages and numbers, and where there are fewer different dialogues than asked for.
    """
    if language not in PHRASES:
        raise ValueError(f"dialogues: unknown language {language!r}, expected one of {', '.join(PHRASES)}")
    unknown = next((kind for kind in kinds if kind not in DIALOGUE_KINDS), None)
    if unknown is not None or not kinds:
        raise ValueError(f"dialogues: unknown kind {unknown!r}, expected some of {', '.join(DIALOGUE_KINDS)}")
    if not 1 <= turns[0] <= turns[1] <= MAX_TURNS:
        raise ValueError(f"dialogues: {turns[0]} to {turns[1]} turns are not within 1 to {MAX_TURNS}")
    chance = Chance(f"dialogues {language} {turns[0]}-{turns[1]} {' '.join(kinds)}", seed)
    seen: set[bytes] = set()
    failed = 0
    while len(seen) < count:
        first = kinds[len(seen) % len(kinds)]
        asked = [first, *(chance.choose(kinds) for _ in range(chance.between(*turns) - 1))]
        draft = _Draft(chance, language)
        for kind in asked:
            _TURNS[kind](draft)
        text = "\0".join(message.text for message in draft.messages)
        digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
        if digest in seen:
            failed += 1
            if failed > _PATIENCE:
                raise ValueError(f"dialogues: there are hardly more than {len(seen)} different ones of kind {first!r}")
            continue
        failed = 0
        seen.add(digest)
        yield Dialogue(tuple(asked), tuple(draft.messages), language)


class _Draft:
    """The messages of one dialogue while it is made."""

    def __init__(self, chance: Chance, language: Language) -> None:
        self.chance, self.words = chance, EVERYDAY_WORDS[language]
        self.phrases: DialoguePhrases = DIALOGUE_PHRASES[language]
        self.messages: list[ChatMessage] = []
        self.value: int | None = None  # what was calculated in the turn before

    def turn(self, asked: str, answer: str, think: str | None = None) -> None:
        self.messages += [ChatMessage("user", asked), ChatMessage("assistant", answer, think)]
        self.value = None

    def tool_turn(self, asked: str, think: str, call: str, result: str, answer: str) -> None:
        """The answer goes on in the line behind the result."""
        self.messages += [
            ChatMessage("user", asked),
            ChatMessage("assistant", call, think),
            ChatMessage("tool", result),
            ChatMessage("assistant", f"\n{answer}"),
        ]
        self.value = None

    def sentence(self, size: int, animal: str | None = None, place: str | None = None) -> str:
        """A sentence of `size` words, 3 to 10; with a place it needs 6 at least."""
        chance, phrases = self.chance, self.phrases
        room = size - 3
        at = place or (chance.choose(self.words["places"]) if room >= 3 and (room > 4 or chance.happens(0.5)) else None)
        room -= 3 if at is not None else 0
        shown = set(chance.distinct(range(4), room))  # of: an adjective before, one behind it, how, when
        before, behind = chance.choose(phrases.before), chance.choose(self.words["traits"])
        noun = animal or chance.choose(self.words["animals"])
        named = phrases.noun.format(
            before=f"{before} " if 0 in shown else "", behind=behind if 1 in shown else "", noun=noun
        )
        parts = [
            " ".join(named.split()),
            chance.choose(phrases.verbs),
            chance.choose(phrases.how) if 2 in shown else "",
            phrases.near.format(place=at) if at is not None else "",
            chance.choose(phrases.when) if 3 in shown else "",
        ]
        return " ".join(part for part in parts if part) + "."


def _calculator(draft: _Draft) -> None:
    chance, phrases = draft.chance, draft.phrases
    sign = chance.choose("+-*/")
    goes_on = draft.value is not None and chance.happens(0.6)
    a = draft.value if goes_on and draft.value is not None else chance.between(2, 999)
    divisors = [divisor for divisor in range(2, 13) if a % divisor == 0]
    if sign == "/" and not divisors:
        sign = "+"
    if sign == "-" and a < 3:
        sign = "+"
    if sign == "/":
        b = chance.choose(divisors)
    else:
        b = chance.between(2, {"+": 999, "-": min(a - 1, 999), "*": 99}[sign])
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
    said = phrases.signs[sign]
    asked = phrases.and_then.format(sign=said, b=b) if goes_on else phrases.how_much.format(a=a, sign=said, b=b)
    expression = f"{a}{sign}{b}"
    draft.tool_turn(
        asked,
        phrases.calculate.format(a=a, sign=said, b=b, expression=expression),
        f"<calc>{expression}</calc>",
        str(value),
        phrases.it_is.format(a=a, sign=said, b=b, value=value),
    )
    draft.value = value


def _search(draft: _Draft) -> None:
    chance, phrases = draft.chance, draft.phrases
    names = [_name(chance) for _ in range(7)]
    while len(set(names)) < len(names):
        names = [_name(chance) for _ in range(7)]
    town, other, land, river, second, *_ = names
    mayors = chance.distinct(GIRLS + BOYS, 2)
    people = [chance.between(2, 99) * 100 + chance.between(1, 99) for _ in range(2)]
    towns = [
        phrases.snippet.format(town=name, land=land, people=count, river=water, mayor=mayor)
        for name, count, water, mayor in zip((town, other), people, (river, second), mayors, strict=True)
    ]
    lines = [f"[{name}] {text}" for name, text in zip((town, other), towns, strict=True)]
    what = chance.choose(_ASKED)
    known = not chance.happens(_UNKNOWN)
    if not known:
        lines = lines[1:] if chance.happens(0.5) else []
    values = {"inhabitants": people[0], "river": river, "mayor": mayors[0]}
    word = phrases.asked_for[what]
    draft.tool_turn(
        phrases.town_questions[what].format(town=town),
        phrases.look_up.format(word=word, town=town),
        f"<search>{town} {word}</search>",
        "\n".join(chance.distinct(lines, len(lines))) or phrases.nothing_found,
        phrases.town_answers[what].format(town=town, value=values[what])
        if known
        else phrases.not_known.format(town=town),
    )


def _name(chance: Chance) -> str:
    return "".join(chance.distinct(_SYLLABLES, chance.between(2, 3))).capitalize()


def _count(draft: _Draft) -> None:
    size, animal = draft.chance.between(3, 10), draft.chance.choose(draft.words["animals"])
    sentence = draft.sentence(size, animal)
    counted = " ".join(f"{number}:{word}" for number, word in enumerate(sentence.removesuffix(".").split(), 1))
    draft.turn(draft.phrases.count.format(n=size, animal=animal), sentence, counted)


def _capitals(draft: _Draft) -> None:
    sentence = draft.sentence(draft.chance.between(3, 8))
    draft.turn(draft.phrases.capitals.format(text=sentence[0].lower() + sentence[1:]), sentence.upper())


def _list(draft: _Draft) -> None:
    sort, name = draft.chance.choose(draft.phrases.sorts)
    size = draft.chance.between(2, 6)
    items = draft.chance.distinct(draft.words[sort], size)
    lines = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    draft.turn(draft.phrases.list.format(n=size, name=name), lines)


def _contains(draft: _Draft) -> None:
    place = draft.chance.choose(draft.words["places"])
    draft.turn(draft.phrases.contains.format(word=place), draft.sentence(draft.chance.between(6, 9), None, place))


_TURNS: MappingProxyType[str, Callable[[_Draft], None]] = MappingProxyType(
    {
        "calculator": _calculator,
        "search": _search,
        "count": _count,
        "capitals": _capitals,
        "list": _list,
        "contains": _contains,
    }
)
