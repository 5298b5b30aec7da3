"""Are the answers of a dialogue right? Read from its messages alone; nothing is shared with what wrote them.

A calculator's expression must be what was asked, its result the value, and the answer say it. A search must be for the town and
the thing that were asked for, and the answer what the results say of that town, or that they say nothing. What is written must
keep the rule that was given: so many words, all in capitals, so many different things of a sort, a word that must be there.
Whatever else is said within these rules is not judged. Questions that are not understood are faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tinydata.chat import ChatMessage

_OPERATORS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    word: (sign, compute)
    for sign, words, compute in (
        ("+", ("plus", "más"), lambda a, b: a + b),
        ("-", ("minus", "menos"), lambda a, b: a - b),
        ("*", ("times", "por"), lambda a, b: a * b),
        ("/", ("divided by", "entre"), lambda a, b: a // b if b and a % b == 0 else -1),
    )
    for word in words
}
_SAID = "|".join(_OPERATORS)
_TOWN = r"([A-Z][a-z]+)"
_SEARCHES = (  # question, what the query names, where a result has it, the answer to it
    (
        rf"How many inhabitants does {_TOWN} have\?",
        "inhabitants",
        r"It has (\d+) inhabitants\.",
        "{0} has {1} inhabitants.",
    ),
    (rf"Which river flows through {_TOWN}\?", "river", rf"The river {_TOWN} flows", "The river {1} flows through {0}."),
    (rf"Who is the mayor of {_TOWN}\?", "mayor", rf"Its mayor is {_TOWN}\.", "The mayor of {0} is {1}."),
    (rf"¿Cuántos habitantes tiene {_TOWN}\?", "habitantes", r"Tiene (\d+) habitantes\.", "{0} tiene {1} habitantes."),
    (rf"¿Qué río pasa por {_TOWN}\?", "río", rf"el río {_TOWN}\.", "El río {1} pasa por {0}."),
    (rf"¿Quién gobierna {_TOWN}\?", "gobierna", rf"Quien lo gobierna es {_TOWN}\.", "Quien gobierna {0} es {1}."),
)
_NOT_FOUND = ("I found nothing about {}.", "No encontré nada sobre {}.")
_SORTS = {
    "animals": "rabbit fox bear mouse cat dog duck frog owl turtle",
    "colours": "red blue green yellow orange white purple black",
    "places": "river park farm hill lake garden village market",
    "animales": "conejo zorro oso gato perro pato búho erizo caballo burro",
    "colores": "rojo negro blanco amarillo morado dorado plateado rosado",
    "lugares": "parque río lago jardín pueblo mercado bosque campo",
}


class _Turn(NamedTuple):
    """A question, and what was said up to the next: thoughts and words, a tool's result, words behind it."""

    asked: str
    think: str | None
    text: str
    result: str | None
    after: str


def dialogue_fault(messages: Sequence[ChatMessage]) -> str | None:
    """What is wrong with the first answer that is wrong, in a few words; None where none is."""
    turns = _turns(messages)
    if not turns:
        return "the messages are no questions with answers"
    value: int | None = None
    for number, turn in enumerate(turns, 1):
        fault, value = _judged(turn, value)
        if fault is not None:
            return f"turn {number}: {fault}"
    return None


def _turns(messages: Sequence[ChatMessage]) -> list[_Turn]:
    """Nothing where the roles are in another order than user, assistant, and perhaps tool and assistant."""
    turns: list[_Turn] = []
    left = list(messages)
    while left:
        roles = [message.role for message in left[:4]]
        if roles[:2] != ["user", "assistant"]:
            return []
        if roles[2:] == ["tool", "assistant"]:
            asked, said, result, after = left[:4]
            turns.append(_Turn(asked.text, said.think, said.text, result.text, after.text))
            del left[:4]
        else:
            asked, said = left[:2]
            turns.append(_Turn(asked.text, said.think, said.text, None, ""))
            del left[:2]
    return turns


def _judged(turn: _Turn, before: int | None) -> tuple[str | None, int | None]:
    """What is wrong, and the value that a next question may go on with. before: that of the turn before."""
    if asked := re.fullmatch(rf"(?:What is|¿Cuánto es) (\d+) ({_SAID}) (\d+)\?", turn.asked):
        return _calculated(turn, int(asked[1]), asked[2], int(asked[3]))
    if asked := re.fullmatch(rf"(?:And|¿Y) ({_SAID}) (\d+)\?", turn.asked):
        if before is None:
            return "there is nothing to go on with", None
        return _calculated(turn, before, asked[1], int(asked[2]))
    for question, word, stated, answer in _SEARCHES:
        if asked := re.fullmatch(question, turn.asked):
            return _searched(turn, asked[1], word, stated, answer), None
    if turn.result is not None:
        return "no tool was needed", None
    return _written(turn), None


def _calculated(turn: _Turn, a: int, said: str, b: int) -> tuple[str | None, int | None]:
    sign, compute = _OPERATORS[said]
    value = compute(a, b)
    asked = f"{a} {said} {b}"
    if turn.text != f"<calc>{a}{sign}{b}</calc>":
        return "another calculation was made", None
    if turn.result != str(value):
        return f"the result is {value}", None
    if turn.think not in (None, f"{asked} is a calculation: {a}{sign}{b}.", f"{asked} es un cálculo: {a}{sign}{b}."):
        return "the thoughts are about something else", None
    if turn.after not in (f"\n{asked} is {value}.", f"\n{asked} es {value}."):
        return "the answer says something else", None
    return None, value


def _searched(turn: _Turn, town: str, word: str, stated: str, answer: str) -> str | None:
    if turn.text != f"<search>{town} {word}</search>":
        return "something else was searched for"
    if turn.think not in (None, f"I look up the {word} of {town}.", f"Busco {town}: {word}."):
        return "the thoughts are about something else"
    lines = (turn.result or "").split("\n")
    about = [line for line in lines if re.match(rf"\[{town}\] {town} (is a town|es un pueblo) ", line)]
    found = [match[1] for line in about if (match := re.search(stated, line))]
    if len(found) > 1 or len(about) != len(found):
        return "the results say nothing clear"
    expected = [answer.format(town, found[0])] if found else [text.format(town) for text in _NOT_FOUND]
    return None if turn.after in [f"\n{text}" for text in expected] else "the answer is not what the results say"


def _written(turn: _Turn) -> str | None:
    count = re.fullmatch(
        r"(?:Write a sentence of exactly|Escribe una frase de exactamente) (\d+) "
        r"(?:words about this animal|palabras sobre este animal): (\w+)\.",
        turn.asked,
    )
    if count:
        words = re.findall(r"\w+", turn.text)
        if len(words) != int(count[1]) or count[2] not in words or not _is_sentence(turn.text):
            return f"it is no sentence of {count[1]} words about it"
        counted = " ".join(f"{number}:{word}" for number, word in enumerate(words, 1))
        return None if turn.think in (None, counted) else "the words are counted otherwise"
    if turn.think is not None:
        return "there are thoughts about nothing"
    if capitals := re.fullmatch(r"(?:Write in capitals|Escribe en mayúsculas): (.+)", turn.asked):
        same = turn.text.casefold() == capitals[1].casefold() and not any(letter.islower() for letter in turn.text)
        return None if same else "it is not the same in capitals"
    if listed := re.fullmatch(
        r"(?:Name|Nombra) (\d+) (\w+) (?:in a numbered list|en una lista numerada)\.", turn.asked
    ):
        lines = [re.fullmatch(r"(\d+)\. (\w+)", line) for line in turn.text.split("\n")]
        items = {line[2] for line in lines if line} & set(_SORTS.get(listed[2], "").split())
        numbers = [int(line[1]) for line in lines if line]
        if len(items) != int(listed[1]) or numbers != list(range(1, len(items) + 1)) or len(lines) != len(items):
            return f"it is no list of {listed[1]} {listed[2]}"
        return None
    if contains := re.fullmatch(
        r'(?:Write a sentence with the word|Escribe una frase con la palabra) "(\w+)"\.', turn.asked
    ):
        inside = contains[1] in re.findall(r"\w+", turn.text) and _is_sentence(turn.text)
        return None if inside else f"it is no sentence with {contains[1]!r}"
    return "the question is not understood"


def _is_sentence(text: str) -> bool:
    """Words with single spaces between them, a capital letter first and a full stop behind."""
    return re.fullmatch(r"\w+(?: \w+)+\.", text) is not None and text[0].isupper()
