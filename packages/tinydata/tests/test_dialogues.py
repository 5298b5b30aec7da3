"""Dialogues: the checker accepts every one, rejects what was changed in meaning, and no result is ever learned."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinydata import CHAT_FORMATS, ChatMessage, Document, check_conversation, train_tokenizer
from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.dialogue_check import dialogue_fault
from tinydata.synthetic.dialogues import DIALOGUE_KINDS, Dialogue, dialogues

LANGUAGES: tuple[Language, ...] = ("english", "spanish")


@pytest.fixture(scope="module")
def single() -> list[Dialogue]:
    return [one for language in LANGUAGES for one in dialogues(2, 2400, language=language, turns=(1, 1))]


def said(*texts: str, think: str | None = None) -> list[ChatMessage]:
    """User, assistant, and perhaps tool and assistant."""
    roles: list[Any] = ["user", "assistant", "tool", "assistant"]
    messages = [ChatMessage(role, text) for role, text in zip(roles, texts, strict=False)]
    return [messages[0], replace(messages[1], think=think), *messages[2:]]


TOLVIK = (
    "[Tolvik] Tolvik is a town in Dura. It has 2010 inhabitants. The river Viko flows through it. Its mayor is Noah."
)
ASKED = "Which river flows through Tolvik?"
RIVER = "\nThe river Viko flows through Tolvik."
FIVE = "Write a sentence of exactly 5 words about this animal: fox."


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (said("What is 12 times 7?", "<calc>12*7</calc>", "84", "\n12 times 7 is 84."), None),
        (said("What is 12 times 7?", "<calc>12*7</calc>", "84", "\n12 times 7 is 85."), "says something else"),
        (said("What is 12 times 7?", "<calc>12*7</calc>", "83", "\n12 times 7 is 83."), "the result is 84"),
        (said("What is 12 times 7?", "<calc>12+7</calc>", "19", "\n12 times 7 is 19."), "another calculation"),
        (said("What is 12 times 7?", "84"), "another calculation"),
        (said("And plus 7?", "<calc>1+7</calc>", "8", "\n1 plus 7 is 8."), "nothing to go on with"),
        (
            said("What is 1 plus 1?", "<calc>1+1</calc>", "2", "\n1 plus 1 is 2.")
            + said("And times 7?", "<calc>2*7</calc>", "14", "\n2 times 7 is 14."),
            None,
        ),
        (
            said("What is 1 plus 1?", "<calc>1+1</calc>", "2", "\n1 plus 1 is 2.")
            + said("And times 7?", "<calc>3*7</calc>", "21", "\n3 times 7 is 21."),
            "turn 2: another calculation",
        ),
        (said(ASKED, "<search>Tolvik river</search>", TOLVIK, "\nThe river Viko flows through Tolvik."), None),
        (said(ASKED, "<search>Tolvik river</search>", TOLVIK, "\nThe river Noah flows through Tolvik."), "not what"),
        (said(ASKED, "<search>Tolvik mayor</search>", TOLVIK, "\nThe river Viko flows through Tolvik."), "something else"),
        (said(ASKED, "<search>Tolvik river</search>", TOLVIK, "\nI found nothing about Tolvik."), "not what the results"),
        (said(ASKED, "<search>Tolvik river</search>", "error: nothing found", "\nI found nothing about Tolvik."), None),
        (said(ASKED, "<search>Tolvik river</search>", "error: nothing found", RIVER), "not what"),
        (said(ASKED, "<search>Tolvik river</search>", f"{TOLVIK}\n{TOLVIK.replace('Viko', 'Mo')}", RIVER), "nothing clear"),
        (said(FIVE, "The old fox sleeps today."), None),
        (said(FIVE, "The old fox sleeps."), "no sentence of 5 words"),
        (said(FIVE, "The old cat sleeps today."), "no sentence of 5 words"),
        (said(FIVE, "the old fox sleeps today."), "no sentence of 5 words"),
        (said(FIVE, "The old fox sleeps today.", think="1:The 2:old 3:fox 4:sleeps 5:today"), None),
        (said(FIVE, "The old fox sleeps today.", think="1:The 2:old 3:fox 4:sleeps"), "counted otherwise"),
        (said("Escribe en mayúsculas: el búho canta.", "EL BÚHO CANTA."), None),
        (said("Escribe en mayúsculas: el búho canta.", "EL BUHO CANTA."), "not the same"),
        (said("Write in capitals: the fox.", "The FOX."), "not the same"),
        (said("Name 2 colours in a numbered list.", "1. red\n2. blue"), None),
        (said("Name 2 colours in a numbered list.", "1. red\n2. red"), "no list of 2 colours"),
        (said("Name 2 colours in a numbered list.", "1. red\n2. fox"), "no list of 2 colours"),
        (said("Name 2 colours in a numbered list.", "1. red\n3. blue"), "no list of 2 colours"),
        (said("Name 2 colours in a numbered list.", "1. red\n2. blue\n3. green"), "no list of 2 colours"),
        (said("Name 2 colours in a numbered list.", "1. red\n2. blue\nI hope it helps."), "no list of 2 colours"),
        (said('Write a sentence with the word "river".', "The fox sleeps near the river."), None),
        (said('Write a sentence with the word "river".', "The fox sleeps near the rivers."), "no sentence with"),
        (said("Why?", "Because."), "not understood"),
        (said("Why?", "Because.", "1", "2"), "no tool was needed"),
        ([], "no questions with answers"),
        ([ChatMessage("user", "Why?")], "no questions with answers"),
    ],
)  # fmt: skip
def test_the_checker_says_what_is_wrong(messages: list[ChatMessage], fault: str | None) -> None:
    found = dialogue_fault(messages)
    assert (found is None) == (fault is None), found
    assert fault is None or fault in str(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_dialogue_is_right(language: Language) -> None:
    made = list(dialogues(1, 3000, language=language))
    for one in made:
        assert dialogue_fault(one.messages) is None
        for form in CHAT_FORMATS.values():
            check_conversation(one.messages, form.alternate)
        assert [message.role for message in one.messages].count("user") == len(one.kinds)
    assert len({one.messages for one in made}) == len(made)
    assert Counter(one.kinds[0] for one in made) == dict.fromkeys(DIALOGUE_KINDS, 500)
    assert Counter(len(one.kinds) for one in made).keys() == {1, 2, 3}
    texts = [message.text for one in made for message in one.messages]
    assert sum(text.startswith(("And ", "¿Y ")) for text in texts) > 30, "questions that go on from the answer before"
    assert sum("nothing about" in text or "nada sobre" in text for text in texts) > 80
    assert made[:60] == list(dialogues(1, 60, language=language))
    assert made[:60] != list(dialogues(3, 60, language=language))


# --- what is changed is noticed ------------------------------------------------------------------------------------------

OTHER = {"digit": "0123456789", "sign": "+-*/"}


def other_digit(text: str, chance: random.Random) -> str:
    at = chance.choice([found.start() for found in re.finditer(r"\d", text)])
    return text[:at] + chance.choice([digit for digit in OTHER["digit"] if digit != text[at]]) + text[at + 1 :]


def other_word(text: str, chance: random.Random, words: str = r"\w+") -> str:
    found = chance.choice([*re.finditer(words, text)])
    return f"{text[: found.start()]}zib{text[found.end() :]}"


def other_sign(text: str, chance: random.Random) -> str:
    at = re.search(r"(?<=\d)[-+*/](?=\d)", text)
    assert at is not None
    return text[: at.start()] + chance.choice([sign for sign in OTHER["sign"] if sign != at[0]]) + text[at.end() :]


def without_word(text: str, chance: random.Random) -> str:
    words = text.split(" ")
    del words[chance.randrange(len(words))]
    return " ".join(words)


def lower_letter(text: str, chance: random.Random) -> str:
    at = chance.choice([at for at, letter in enumerate(text) if letter.isalpha()])
    return text[:at] + text[at].lower() + text[at + 1 :]


# of each kind: message that is changed, and how; each changes what is said, or breaks the rule
Change = Callable[[str, random.Random], str]
CHANGES: dict[str, list[tuple[int, Change]]] = {
    "calculator": [(1, other_digit), (1, other_sign), (2, other_digit), (3, other_digit), (3, other_word)],
    "search": [(1, other_word), (3, other_word), (3, without_word)],
    "count": [(1, without_word)],
    "capitals": [(1, other_word), (1, without_word), (1, lower_letter)],
    "list": [(1, other_digit), (1, other_word), (1, without_word)],
    "contains": [],
}


def test_changed_answers_are_rejected(single: list[Dialogue]) -> None:
    chance = random.Random(4)
    tried: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for one in single:
        (kind,) = one.kinds
        for at, change in CHANGES[kind]:
            messages = list(one.messages)
            messages[at] = replace(messages[at], text=change(messages[at].text, chance))
            if messages[at].text == one.messages[at].text:
                continue
            tried[kind] += 1
            accepted[kind] += dialogue_fault(messages) is None
        if kind == "contains":
            word = one.messages[0].text.split('"')[1]
            wrong = one.messages[1].text.replace(word, "zib")
            tried[kind] += 1
            accepted[kind] += dialogue_fault([one.messages[0], replace(one.messages[1], text=wrong)]) is None
    assert sum(tried.values()) > 9000
    for kind in DIALOGUE_KINDS:
        assert tried[kind] >= 800
        assert accepted[kind] <= 0.01 * tried[kind]


# words of the answers that are no values
SAID = [
    "The",
    "is",
    "has",
    "of",
    "El",
    "por",
    "es",
    "Quien",
    "río",
    "river",
    "inhabitants",
    "habitantes",
    "flows",
    "through",
    "mayor",
    "gobierna",
    "pasa",
    "tiene",
]


def test_what_the_results_say_is_what_counts(single: list[Dialogue]) -> None:
    """Another value in the results about the town that was asked for makes the answer wrong."""
    checked = 0
    for one in single:
        if one.kinds != ("search",):
            continue
        town, answer = re.findall(r"<search>(\w+)", one.messages[1].text)[0], one.messages[3].text
        lines = one.messages[2].text.split("\n")
        mine = [line for line in lines if line.startswith(f"[{town}]")]
        if not mine:
            assert "nothing about" in answer or "nada sobre" in answer
            continue
        (value,) = [
            word
            for word in re.findall(r"\w+", answer)
            if word in re.findall(r"\w+", mine[0]) and word not in {town, *SAID}
        ]
        changed = "\n".join(line.replace(value, "77" if value.isdigit() else "Zib") for line in lines)
        messages = [*one.messages[:2], replace(one.messages[2], text=changed), one.messages[3]]
        assert dialogue_fault(messages) is not None
        checked += 1
    assert checked > 500


def test_what_keeps_the_rule_is_accepted(single: list[Dialogue]) -> None:
    for one in single:
        if one.kinds in (("count",), ("contains",)):
            text = re.sub(r"^(The|El)\b", "That", one.messages[1].text)
            assert dialogue_fault([one.messages[0], replace(one.messages[1], text=text, think=None)]) is None


def test_calls_are_tokens_and_results_are_given() -> None:
    made = [one for language in LANGUAGES for one in dialogues(6, 60, language=language)]
    texts = [message.text for one in made for message in one.messages]
    tokenizer = train_tokenizer([Document(text, "x") for text in texts], 400)
    special = tokenizer.special
    for one in made:
        for form in CHAT_FORMATS.values():
            problem = form.encode(one.messages, tokenizer, trusted=True)
            learned = tokenizer.decode(problem.ids[~problem.given & (np.arange(len(problem.ids)) >= problem.prompt)])
            tools = [message.text for message in one.messages if message.role == "tool"]
            assert "<result>" not in learned
            assert (problem.ids == special["<result>"]).sum() == len(tools)
            calls = sum((problem.ids == special[name]).sum() for name in ("<calc>", "<search>"))
            assert calls == len(tools)
            assert all(message.text.strip() in learned for message in one.messages if message.role == "assistant")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("poems",)}, "unknown kind 'poems'"),
        ({"kinds": ()}, "unknown kind None"),
        ({"language": "latin"}, "unknown language 'latin'"),
        ({"turns": (0, 1)}, "0 to 1 turns"),
        ({"turns": (2, 9)}, "2 to 9 turns"),
    ],
)
def test_what_cannot_be_says_so(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(dialogues(0, 1, **settings))


def test_there_are_only_so_many_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinydata.synthetic.dialogues._PATIENCE", 20)
    with pytest.raises(ValueError, match=r"hardly more than \d+ different ones of kind 'contains'"):
        list(dialogues(0, 10**6, ("contains",), turns=(1, 1)))
