"""What a worked answer claims, and whether it is true: its final answer, its calculations, its programs.

    tagged      <calc>12*7</calc><result>84</result>, <<12*7=84>>
    written     12 * 7 = 84, $5 x 3 = $15, 2 + 3 = 5 = 10 / 2        every side has the same value, or is it rounded
    programs    <code>print(12*7)</code><result>84</result>

Arithmetic is exact (`arithmetic_expression`), nothing is evaluated as Python. An equation is read only where both of its sides
are plainly numbers: neighbours such as `x + 3 = 10` or `3 apples + 2 = 5` are words and are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tinydata.gsm8k import Verdict, verified

MAX_ANSWER = 128

_MARK = re.compile(r"####|\\boxed\{|\b(?i:answer|respuesta)\s*(?:is|es|:)\s*:?", re.ASCII)
_ANNOTATION = re.compile(r"<<([^<>\n]{1,256})>>")
_CALL = re.compile(r"<calc>([^<>]*)</calc>(?:\s*<result>([^<>]*)</result>)?")
_PROGRAM = re.compile(r"<code>(.*?)</code>(?:\s*<result>(.*?)</result>)?", re.DOTALL)
_TAG = re.compile(r"<(/?)(think|calc|code|result)>")
# Every repetition has a bound: a text that was made to be slow to search is searched in linear time.
_NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,6}|\d{1,20})(?:\.\d{1,12})?%?"
_OPERAND = rf"(?:\( ?){{0,4}}{_NUMBER}(?: ?\)){{0,4}}"
_SIDE = rf"-?{_OPERAND}(?: ?[-+*/] ?{_OPERAND}){{0,11}}"
_EQUATION = re.compile(rf"{_SIDE}(?: ?= ?{_SIDE}){{1,5}}")
_BEFORE = re.compile(r"[-+*/^%(<>] ?\Z|[\w)\].,]\Z")
_NEGATED = re.compile(r"[\w)%] ?\Z")
_BEHIND = re.compile(r" ?[-+*/^=] ?[\w(]|[\w^(]| \(\d|[.,]\d")
_WORKED = re.compile(r"[\d)%] ?[-+*/]")
_TIMES = re.compile(r"(?<=[\d)%])[ ]?[x×·][ ]?(?=[\d(])|\\times|\\cdot|×|·")


@dataclass(frozen=True, slots=True)
class Program:
    """A program of a trace, and what the trace says that it prints (None: it does not say)."""

    source: str
    printed: str | None


def final_answer(text: str) -> str | None:
    """What stands behind the last `####`, `Answer:` or `the answer is`, or in the last `\\boxed{}`; None if nothing does."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    rest = text[marks[-1].end() :]
    found = _braced(rest) if marks[-1][0].startswith("\\boxed") else rest.strip().split("\n", 1)[0]
    found = found.rstrip("*$. \t\r").lstrip("*$ \t")
    return found if 0 < len(found) <= MAX_ANSWER else None


def unbalanced(text: str) -> bool:
    """Whether tags are opened and not closed, closed and not opened, stand within each other (but for calls in thoughts), or a
    result follows no call."""
    open_tags: list[str] = []
    behind = -1  # where the last call or program ended
    for tag in _TAG.finditer(text):
        closing, name = tag.groups()
        if closing:
            if not open_tags or open_tags.pop() != name:
                return True
            behind = tag.end() if name in ("calc", "code") else -1
            continue
        within = bool(open_tags) and (open_tags != ["think"] or name == "think")
        stray = name == "result" and (behind < 0 or text[behind : tag.start()].strip() != "")
        if within or stray:
            return True
        open_tags.append(name)
    return bool(open_tags)


def steps(text: str) -> Iterator[Verdict]:
    """The verdict on every calculation: exact, rounded, wrong or, where a tag holds no arithmetic, unreadable."""
    for content in _ANNOTATION.findall(text):
        yield verified(content).verdict
    for call, result in _CALL.findall(text):
        yield verified(f"{call}={result}").verdict if result else "unreadable"
    plain = _PROGRAM.sub(" ; ", _CALL.sub(" ; ", _ANNOTATION.sub("", text)))
    for equation in _equations(_arithmetic(plain)):
        yield from _sides(equation)


def programs(text: str) -> list[Program]:
    """The programs in order."""
    return [Program(match[1], match[2]) for match in _PROGRAM.finditer(text)]


def _arithmetic(text: str) -> str:
    """With the signs of our arithmetic, and without currencies."""
    text = text.replace("\u2212", "-").replace("÷", "/").replace("\\div", "/").replace("\\%", "%")
    text = re.sub(r"[$€£\\]", "", _TIMES.sub("*", text))
    return re.sub(r"[ \t]+", " ", text)


def _equations(text: str) -> Iterator[str]:
    for match in _EQUATION.finditer(text):
        # `x + 3 = 10` starts behind a sign, `f(2) = 3` and `v2 = 3` behind a name, and `12 = 3 x` goes on behind its end
        before = text[max(0, match.start() - 2) : match.start()]
        if _BEFORE.search(before) or (match[0][0] == "-" and _NEGATED.search(before)):
            continue
        if not _BEHIND.match(text, match.end()):
            yield match[0]


def _sides(equation: str) -> Iterator[Verdict]:
    """A verdict for every `=` of a chain in which something is computed."""
    sides = [side.strip() for side in equation.split("=")]
    for left, right in pairwise(sides):
        # what is computed is the expression, what it is said to be the result
        worked, said = (left, right) if _WORKED.search(left) else (right, left)
        if not _WORKED.search(worked):
            continue
        verdict = verified(f"{worked}={said}").verdict
        # brackets of the sentence and bare percentages are no claims about numbers
        if verdict != "unreadable":
            yield verdict


def _braced(rest: str) -> str:
    depth = 1
    for at, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[:at]
    return rest
