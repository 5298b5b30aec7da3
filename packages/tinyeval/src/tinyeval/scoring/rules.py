"""Rules that a program can check on a text: what instruction following and stories are scored by.

A rule is a mapping {"rule": name, ...}; `RULES` holds them by name. Words are runs of letters and digits, in any case, with
apostrophes and hyphens inside; sentences end with . ! or ?; lines are those that are not empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tinyeval.metrics.repetition import distinct_n, longest_loop

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?]*[^\W_][^.!?]*[.!?]+")


def kept(text: str, rules: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which of ``rules`` the text keeps. An empty text keeps none.

    Raises ValueError for an unknown rule and one whose settings are not its own.
    """
    found = []
    for rule in rules:
        settings = {key: value for key, value in rule.items() if key != "rule"}
        name = str(rule.get("rule"))
        if name not in RULES:
            raise ValueError(f"rules: unknown {name!r}, not one of {', '.join(sorted(RULES))}")
        try:
            holds = RULES[name](text.strip(), **settings)
        except TypeError:
            raise ValueError(f"rules: {name} does not take {', '.join(settings) or 'nothing'}") from None
        found.append(bool(text.strip()) and holds)
    return found


def _within(count: int, least: int, most: int | None, exactly: int | None) -> bool:
    return count == exactly if exactly is not None else least <= count and (most is None or count <= most)


def _words(text: str, least: int = 0, most: int | None = None, exactly: int | None = None) -> bool:
    return _within(len(_WORD.findall(text)), least, most, exactly)


def _sentences(text: str, least: int = 0, most: int | None = None, exactly: int | None = None) -> bool:
    return _within(len(_SENTENCE.findall(text)), least, most, exactly)


def _lines(text: str, least: int = 0, most: int | None = None, exactly: int | None = None) -> bool:
    return _within(len([line for line in text.splitlines() if line.strip()]), least, most, exactly)


def _has_word(text: str, word: str) -> bool:
    return word.casefold() in {one.casefold() for one in _WORD.findall(text)}


def _lacks_word(text: str, word: str) -> bool:
    return not _has_word(text, word)


def _equals(text: str, to: str) -> bool:
    return text == to


def _starts_with(text: str, text_: str) -> bool:
    return text.startswith(text_)


def _ends_with(text: str, text_: str) -> bool:
    return text.endswith(text_)


def _each_line_starts_with(text: str, text_: str) -> bool:
    return all(line.lstrip().startswith(text_) for line in text.splitlines() if line.strip())


def _upper_case(text: str) -> bool:
    return text.isupper()


def _lower_case(text: str) -> bool:
    return text.islower()


def _ends_sentence(text: str) -> bool:
    return text.rstrip("\"'\u201d\u2019)").endswith((".", "!", "?"))


def _no_loop(text: str) -> bool:
    return longest_loop(text.split()) == (0, 0)


def _distinct(text: str, n: int, least: float) -> bool:
    return distinct_n([text.split()], n) >= least


def _with_text(rule: Callable[[str, str], bool]) -> Callable[..., bool]:
    """A rule whose setting is called `text`, as the text that it judges is."""

    def judge(judged: str, /, **settings: str) -> bool:
        if set(settings) != {"text"}:
            raise TypeError
        return rule(judged, settings["text"])

    return judge


RULES: Mapping[str, Callable[..., bool]] = MappingProxyType(
    {
        "distinct": _distinct,
        "each_line_starts_with": _with_text(_each_line_starts_with),
        "ends_sentence": _ends_sentence,
        "ends_with": _with_text(_ends_with),
        "equals": _equals,
        "has_word": _has_word,
        "lacks_word": _lacks_word,
        "lines": _lines,
        "lower_case": _lower_case,
        "no_loop": _no_loop,
        "sentences": _sentences,
        "starts_with": _with_text(_starts_with),
        "upper_case": _upper_case,
        "words": _words,
    }
)
