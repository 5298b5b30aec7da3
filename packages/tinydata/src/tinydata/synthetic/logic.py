"""Chains of conclusions: facts and rules in any order, most of them beside the point, and a question that takes k of them.

    kinds     Mia is a wug. Every wug is a dax. No dax is a fep. Is Mia a fep?                               (as 2210.01240)
              <think>Mia is a wug.
              Every wug is a dax, so Mia is a dax.
              No dax is a fep, so Mia is not a fep.</think>
              Answer: no
    people    Ana helps Ben. Ben visits Eva. Who is visited by the one that is helped by Ana?
              <think>Ana helps Ben.
              Ben visits Eva.</think>
              Answer: Eva

Hops are the rules that are used, or the facts about people. Kinds have invented names, so that nothing is known about them
beforehand. Besides the chain there are as many distractors as asked for: rules that lead off it or into it, what others are,
whom others help. Every question has exactly one answer and one shortest way to it, and an answer of yes is as frequent as
one of no. `logic_check`, which knows nothing of this file, reads the texts and finds the same.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from tinydata.synthetic.arithmetic_phrases import PHRASES, Language
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.story_words import BOYS, GIRLS

LogicKind = Literal["kinds", "people"]
LOGIC_KINDS: tuple[LogicKind, ...] = get_args(LogicKind)
LogicForm = Literal["once", "hand"]
MAX_HOPS = 12
MAX_DISTRACTORS = 24

PEOPLE = GIRLS + BOYS
KINDS = (
    "wug", "dax", "fep", "zib", "tulver", "gorp", "blick", "mib", "rompus", "lorp", "vumpus", "jelk", "sterp", "kazoo",
    "numpus", "brill", "crog", "dunple", "fimsy", "grell", "hix", "jompus", "kib", "lempus", "molk", "nerp", "plib",
    "quon", "rask", "snad", "tark", "vosk", "wompus", "yarp", "zorn", "bemp", "cluv", "drem", "frob", "glim", "hurl",
    "jart", "krex", "lund", "marn", "noll", "pesk", "rilk", "sorb", "teff",
)  # fmt: skip
VERBS = MappingProxyType(
    {
        "english": (("helps", "helped"), ("visits", "visited"), ("calls", "called"), ("thanks", "thanked")),
        "spanish": (("ayuda", "ayuda"), ("visita", "visita"), ("llama", "llama"), ("saluda", "saluda")),
    }
)
_PATIENCE = 10_000  # as in `exercises`


@dataclass(frozen=True, slots=True)
class _Wording:
    """Slots: {who} and {whom} people, {a} and {b} kinds, {verb}."""

    fact: str
    every: str
    no: str
    so: str
    so_not: str
    asked: str
    does: str
    ask_by_hand: str
    ask_at_once: str
    question: str
    answer: str
    yes_no: tuple[str, str]


_WORDS = MappingProxyType(
    {
        "english": _Wording(
            fact="{who} is a {a}",
            every="Every {a} is a {b}",
            no="No {a} is a {b}",
            so="so {who} is a {b}",
            so_not="so {who} is not a {b}",
            asked="Is {who} a {a}?",
            does="{who} {verb} {whom}",
            ask_by_hand="By hand:",
            ask_at_once="At once:",
            question="Question",
            answer="Answer",
            yes_no=("yes", "no"),
        ),
        "spanish": _Wording(
            fact="{who} es un {a}",
            every="Todo {a} es un {b}",
            no="Ningún {a} es un {b}",
            so="así que {who} es un {b}",
            so_not="así que {who} no es un {b}",
            asked="¿Es {who} un {a}?",
            does="{who} {verb} a {whom}",
            ask_by_hand="A mano:",
            ask_at_once="De una vez:",
            question="Pregunta",
            answer="Respuesta",
            yes_no=("sí", "no"),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class LogicProblem:
    """A question with its facts and rules, one line of reasoning for each of `steps`, and the answer. wrong: an answer and a
    last step of the same form that are not true."""

    kind: LogicKind
    question: str
    steps: tuple[str, ...]
    answer: str
    wrong: tuple[str, str]
    hops: int
    language: Language = "english"

    def prompt(self, form: LogicForm) -> str:
        """What is asked: the question, and in the next line how to answer."""
        words = _WORDS[self.language]
        return f"{words.question}: {self.question}\n{words.ask_at_once if form == 'once' else words.ask_by_hand}\n"

    def solution(self, form: LogicForm) -> str:
        """What is answered, with its tags."""
        answer = f"{_WORDS[self.language].answer}: {self.answer}"
        thoughts = "\n".join(self.steps)
        return answer if form == "once" else f"<think>{thoughts}</think>\n{answer}"

    def flawed(self, chance: Chance) -> LogicProblem:
        """The same question answered wrongly: after a wrong last step, or, as often, against its own right steps."""
        step, answer = self.wrong
        steps = (*self.steps[:-1], step) if chance.happens(0.5) else self.steps
        return replace(self, steps=steps, answer=answer)


def logic(
    seed: int,
    count: int,
    kinds: Sequence[LogicKind] = LOGIC_KINDS,
    language: Language = "english",
    hops: tuple[int, int] = (1, 4),
    distractors: int = 4,
) -> Iterator[LogicProblem]:
    """The first `count` different problems of `seed`, of each of `kinds` in turn, the same in every Python version.

    hops: fewest and most, each as often. distractors: statements beside those that are needed.
    Raises ValueError for other kinds, languages and numbers, and where there are fewer different problems than asked for.
    """
    _check(kinds, language, hops, distractors)
    chance = Chance(f"logic {language} {hops[0]}-{hops[1]} {distractors} {' '.join(kinds)}", seed)
    posed: set[bytes] = set()
    failed = 0
    while len(posed) < count:
        kind = kinds[len(posed) % len(kinds)]
        draw = _of_kinds if kind == "kinds" else _of_people
        made = draw(chance, language, chance.between(*hops), distractors)
        digest = hashlib.blake2b(made.question.encode(), digest_size=12).digest()
        if digest in posed:
            failed += 1
            if failed > _PATIENCE:
                raise ValueError(f"logic: there are hardly more than {len(posed)} different problems of kind {kind!r}")
            continue
        failed = 0
        posed.add(digest)
        yield made


def _of_kinds(chance: Chance, language: Language, hops: int, distractors: int) -> LogicProblem:
    words = _WORDS[language]
    who, *others = chance.distinct(PEOPLE, 4)
    names = chance.distinct(KINDS, hops + 1 + distractors)
    chain, fresh = names[: hops + 1], names[hops + 1 :]
    denied = chance.happens(0.5)
    rules = [words.every.format(a=a, b=b) for a, b in itertools.pairwise(chain)]
    if denied:
        rules[-1] = words.no.format(a=chain[-2], b=chain[-1])
    steps = [f"{words.fact.format(who=who, a=chain[0])}."]
    for index, (rule, kind) in enumerate(zip(rules, chain[1:], strict=True)):
        so = words.so_not if denied and index == hops - 1 else words.so
        steps.append(f"{rule}, {so.format(who=who, b=kind)}.")
    beside = [_beside(chance, words, chain, kind, others) for kind in fresh]
    stated = _shuffled(chance, [words.fact.format(who=who, a=chain[0]), *rules, *beside])
    question = f"{' '.join(f'{line}.' for line in stated)} {words.asked.format(who=who, a=chain[-1])}"
    misread = (words.every if denied else words.no).format(a=chain[-2], b=chain[-1])
    concluded = (words.so if denied else words.so_not).format(who=who, b=chain[-1])
    wrong = (f"{misread}, {concluded}.", words.yes_no[not denied])
    return LogicProblem("kinds", question, tuple(steps), words.yes_no[denied], wrong, hops, language)


def _beside(chance: Chance, words: _Wording, chain: Sequence[str], kind: str, others: Sequence[str]) -> str:
    """A statement with a `kind` that is in no other one, so that nothing new follows about who is asked for but that."""
    draw = chance.random()
    if draw < 0.4:  # off the chain; what the last kind is denied, nothing follows from
        return chance.choose((words.every, words.no)).format(a=chance.choose(chain[:-1]), b=kind)
    if draw < 0.75:  # into it, from where nobody is
        return chance.choose((words.every, words.no)).format(a=kind, b=chance.choose(chain))
    return words.fact.format(who=chance.choose(others), a=kind)


def _of_people(chance: Chance, language: Language, hops: int, distractors: int) -> LogicProblem:
    words, verbs = _WORDS[language], VERBS[language]
    people = chance.distinct(PEOPLE, min(hops + 1 + max(2, distractors // 2), len(PEOPLE)))
    chain = people[: hops + 1]
    done = [chance.choose(verbs) for _ in range(hops)]
    facts = {(who, verb[0]): whom for who, verb, whom in zip(chain, done, chain[1:], strict=False)}
    steps = [words.does.format(who=who, verb=verb, whom=whom) + "." for (who, verb), whom in facts.items()]
    while len(facts) < hops + distractors:
        who, whom = chance.distinct(people, 2)
        facts.setdefault((who, chance.choose(verbs)[0]), whom)
    stated = _shuffled(
        chance, [words.does.format(who=who, verb=verb, whom=whom) for (who, verb), whom in facts.items()]
    )
    asked = f"{' '.join(f'{line}.' for line in stated)} {_who(language, chain[0], [verb[1] for verb in done])}"
    answer = chance.choose([person for person in people if person not in (chain[-1], chain[-2])])
    wrong = (words.does.format(who=chain[-2], verb=done[-1][0], whom=answer) + ".", answer)
    return LogicProblem("people", asked, tuple(steps), chain[-1], wrong, hops, language)


def _who(language: Language, start: str, verbs: Sequence[str]) -> str:
    """The last verb is asked for first."""
    *inner, last = verbs
    if language == "spanish":
        within = "".join(f" la persona a la que {verb}" for verb in reversed(inner))
        return f"¿A quién {last}{within} {start}?"
    within = "".join(f"the one that is {verb} by " for verb in reversed(inner))
    return f"Who is {last} by {within}{start}?"


def _shuffled(chance: Chance, lines: list[str]) -> list[str]:
    return chance.distinct(lines, len(lines))


def _check(kinds: Sequence[LogicKind], language: Language, hops: tuple[int, int], distractors: int) -> None:
    if language not in PHRASES:
        raise ValueError(f"logic: unknown language {language!r}, expected one of {', '.join(PHRASES)}")
    unknown = next((kind for kind in kinds if kind not in LOGIC_KINDS), None)
    if unknown is not None or not kinds:
        raise ValueError(f"logic: unknown kind {unknown!r}, expected some of {', '.join(LOGIC_KINDS)}")
    if not 1 <= hops[0] <= hops[1] <= MAX_HOPS:
        raise ValueError(f"logic: {hops[0]} to {hops[1]} hops are not within 1 to {MAX_HOPS}")
    if not 0 <= distractors <= MAX_DISTRACTORS:
        raise ValueError(f"logic: {distractors} distractors are not within 0 to {MAX_DISTRACTORS}")
