"""Finding the answer in what a model wrote, and whether it is the right one.

    exact           the whole text, spaces evened out
    word            the first word behind the last `####` or `Answer:`, else of the text, in any case: "Yes, because" is yes
    first_number    its first number, by value
    number          the number behind the last `####` or `Answer:`, else the last one, by value: 1,234 = 1234 = 1234.0

Values are exact fractions. A `Checker` that is passed in decides instead on what `number` found, with units and LaTeX. What
stands between <...> tags of tool calls is left out first: a model is judged by what it says, not by what it asked.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Protocol

MAX_CHARACTERS = 2**16
_NUMBER = re.compile(r"-?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+(?![\d.]))?", re.ASCII)
_MARK = re.compile(r"####|\b(?i:answer|respuesta)\s*(?:is|es|:)\s*:?", re.ASCII)
_CALL = re.compile(r"<(calc|code|think|search)>.*?</\1>|<result>.*?</result>", re.DOTALL)
_WORD = re.compile(r"[^\W_]+")


class Checker(Protocol):
    """Says whether two answers are the same one."""

    def equal(self, a: str, b: str) -> bool: ...


def is_right(text: str, answer: str, scorer: str, checker: Checker | None = None) -> bool:
    """Whether ``text`` gives ``answer`` by the rule ``scorer``. Raises ValueError for another rule."""
    text = text[-MAX_CHARACTERS:]
    if scorer == "exact":
        return text.split() == answer.split()
    if scorer == "word":
        said, wanted = _WORD.search(_behind_mark(_CALL.sub(" ", text))), _WORD.search(answer)
        return said is not None and wanted is not None and said[0].casefold() == wanted[0].casefold()
    found = number_in(text, first=scorer == "first_number")
    if scorer not in ("number", "first_number"):
        raise ValueError(f"scorer: unknown {scorer!r}")
    if found is None:
        return False
    if checker is not None:
        return checker.equal(found, answer)
    return value(found) is not None and value(found) == value(answer)


def number_in(text: str, first: bool = False) -> str | None:
    """The number that ``text`` says is its answer, as it is written; None where there is none."""
    plain = _CALL.sub(" ", text)
    if first:
        found = _NUMBER.search(plain)
        return found[0] if found else None
    if _MARK.search(plain):
        found = _NUMBER.search(_behind_mark(plain).split("\n", 1)[0])
        return found[0] if found else None
    numbers = _NUMBER.findall(plain)
    return numbers[-1] if numbers else None


def _behind_mark(text: str) -> str:
    """What stands behind the last mark of an answer; the whole text where there is none."""
    marks = list(_MARK.finditer(text))
    return text[marks[-1].end() :] if marks else text


def value(text: str) -> Fraction | None:
    """The number that a text is, exactly; None where it is none. Commas, a dollar sign and a full stop are passed over."""
    plain = text.strip().removesuffix(".").replace(",", "").replace("$", "").replace("\u2212", "-")
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None
