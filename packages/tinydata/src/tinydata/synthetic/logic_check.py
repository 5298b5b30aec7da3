"""Is a chain of conclusions right? Read from the texts alone, by forward chaining; nothing is shared with what wrote them.

    question    statements, each ending in a full stop, in any order, and the question behind them
    solution    one line a step between <think> and </think>, or none, and `Answer: ...`

A solution is right if its answer is what all statements together entail, and if its steps, where it shows any, are a proof:
each step is a statement, or a statement applied to what the step before it found, and the last one says what was asked for.
Whatever cannot be read is wrong. English and Spanish, as the question is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"([^\W\d_]+)"
_PATTERNS = {
    "english": {
        "fact": rf"{_NAME} is a {_NAME}",
        "rule": rf"(Every|No) {_NAME} is a {_NAME}",
        "deed": rf"{_NAME} (helps|visits|calls|thanks) {_NAME}",
        "so": rf"(.+), so {_NAME} is (not )?a {_NAME}",
        "whether": rf"Is {_NAME} a {_NAME}\?",
        "who": rf"Who is (.+) by {_NAME}\?",
        "link": " by the one that is ",
        "answer": r"Answer: ([^\W\d_]+)",
    },
    "spanish": {
        "fact": rf"{_NAME} es un {_NAME}",
        "rule": rf"(Todo|Ningún) {_NAME} es un {_NAME}",
        "deed": rf"{_NAME} (ayuda|visita|llama|saluda) a {_NAME}",
        "so": rf"(.+), así que {_NAME} (no )?es un {_NAME}",
        "whether": rf"¿Es {_NAME} un {_NAME}\?",
        "who": rf"¿A quién (.+) {_NAME}\?",
        "link": " la persona a la que ",
        "answer": r"Respuesta: ([^\W\d_]+)",
    },
}
_PASSIVE = {"helped": "helps", "visited": "visits", "called": "calls", "thanked": "thanks"}
_YES_NO = {"english": {True: "yes", False: "no"}, "spanish": {True: "sí", False: "no"}}


class _Wrong(Exception):
    """What is wrong, in a few words."""


@dataclass
class _Told:
    """What a question states: who is what; which kind is another, or is not; who does what to whom; and what it asks."""

    language: str
    facts: set[tuple[str, str]] = field(default_factory=set)
    rules: set[tuple[bool, str, str]] = field(default_factory=set)
    deeds: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    whether: tuple[str, str] | None = None
    start: str = ""
    verbs: tuple[str, ...] = ()


def logic_fault(question: str, solution: str) -> str | None:
    """What is wrong with `solution` as an answer to `question`, in a few words; None where nothing is."""
    try:
        told = _read(question)
        answer = _entailed(told)
        body, _, last = solution.rpartition("\n")
        said = re.fullmatch(_PATTERNS[told.language]["answer"], last)
        if said is None:
            return "there is no answer"
        if said[1] != answer:
            return f"the answer is {answer}"
        if body:
            thoughts = re.fullmatch(r"<think>([^<>]*)</think>", body)
            if thoughts is None:
                return "there are no thoughts"
            _prove(told, thoughts[1].split("\n"))
    except _Wrong as wrong:
        return str(wrong)
    return None


def _read(question: str) -> _Told:
    *lines, asked = re.split(r"(?<=\.) ", question)
    told = _Told("spanish" if asked.startswith("¿") else "english")
    patterns = _PATTERNS[told.language]
    for line in lines:
        statement = line.removesuffix(".")
        if statement == line:
            raise _Wrong(f"{line!r} has no end")
        if rule := re.fullmatch(patterns["rule"], statement):
            told.rules.add((rule[1] in ("Every", "Todo"), rule[2], rule[3]))
        elif fact := re.fullmatch(patterns["fact"], statement):
            told.facts.add((fact[1], fact[2]))
        elif deed := re.fullmatch(patterns["deed"], statement):
            told.deeds.setdefault((deed[1], deed[2]), set()).add(deed[3])
        else:
            raise _Wrong(f"{line!r} is no statement")
    if whether := re.fullmatch(patterns["whether"], asked):
        told.whether = (whether[1], whether[2])
    elif who := re.fullmatch(patterns["who"], asked):
        verbs = reversed(who[1].split(patterns["link"]))
        told.start, told.verbs = who[2], tuple(_PASSIVE.get(verb, verb) for verb in verbs)
    else:
        raise _Wrong(f"{asked!r} is no question")
    return told


def _entailed(told: _Told) -> str:
    """The answer, by all that follows from the statements."""
    if told.whether is None:
        at = told.start
        for verb in told.verbs:
            found = told.deeds.get((at, verb), set())
            if len(found) != 1:
                raise _Wrong(f"{at} {verb} two people" if found else f"nobody says whom {at} {verb}")
            (at,) = found
        return at
    known = {(who, kind, True) for who, kind in told.facts}
    while True:
        more = {
            (who, then, positive)
            for who, kind, holds in known
            if holds
            for positive, given, then in told.rules
            if given == kind
        } - known
        if not more:
            break
        known |= more
    found = [holds for who, kind, holds in known if (who, kind) == told.whether]
    if len(found) != 1:
        raise _Wrong("the statements contradict each other" if found else "nothing follows about what is asked")
    return _YES_NO[told.language][found[0]]


def _prove(told: _Told, lines: list[str]) -> None:
    """Raise _Wrong unless the lines are a proof of what was asked for."""
    patterns = _PATTERNS[told.language]
    if told.whether is None:
        at = told.start
        if len(lines) != len(told.verbs):
            raise _Wrong("there are more or fewer steps than the question has")
        for line, verb in zip(lines, told.verbs, strict=True):
            deed = re.fullmatch(patterns["deed"] + r"\.", line)
            if deed is None or deed.group(1, 2) != (at, verb) or told.deeds.get((at, verb)) != {deed[3]}:
                raise _Wrong(f"{line!r} is not the next step")
            at = deed[3]
        return
    first = re.fullmatch(patterns["fact"] + r"\.", lines[0])
    if first is None or first.group(1, 2) not in told.facts:
        raise _Wrong(f"{lines[0]!r} is not stated")
    who, kind, holds = first[1], first[2], True
    for line in lines[1:]:
        step = re.fullmatch(patterns["so"] + r"\.", line)
        rule = re.fullmatch(patterns["rule"], step[1]) if step is not None else None
        if step is None or rule is None:
            raise _Wrong(f"{line!r} is no step")
        positive = rule[1] in ("Every", "Todo")
        if (positive, rule[2], rule[3]) not in told.rules:
            raise _Wrong(f"{step[1]!r} is not stated")
        if (rule[2], holds) != (kind, True):
            raise _Wrong(f"{step[1]!r} says nothing about the step before")
        if (step[2], step[4], not step[3]) != (who, rule[3], positive):
            raise _Wrong(f"{line!r} does not follow")
        kind, holds = rule[3], positive
    if (who, kind) != told.whether:
        raise _Wrong("what was asked for is not concluded")
