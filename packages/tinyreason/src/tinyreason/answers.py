"""When two answers are the same: by value where both have one, by words where not.

    309,524 = 309524 = 3.09524e5 = $309,524        1/2 = 0.5 = 50 % = 2/4 = 1 1/2 - 1
    5 km = 5000 m = 5,000 meters                   18 apples = 18, but 18 apples is not 18 pears
    Tuesday. = tuesday                             \\frac{1}{2} = 1/2 (math-verify, extra `math`, for more LaTeX)

Values are exact (`Fraction`): nothing is compared by a tolerance, unless one is given. The texts come from models: what
they cost is bounded by `Calculator`'s bounds and by MAX_CHARACTERS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from tinyreason.calculator import Calculator, CalculatorError
from tinyreason.units import UNITS

MAX_CHARACTERS = 512
MAX_EXPONENT = 300

_MARKS = re.compile(r"####|\\boxed\{|\b(?i:answer|respuesta)\s*(?:is|es|:)\s*:?", re.ASCII)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£]?\s*(?P<second>-?)"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?![\d])|\d+)?(?P<decimals>\.\d+)?(?:[eE](?P<exponent>[-+]?\d{1,4}))?"
    r"(?:\s*/\s*(?P<denominator>\d+)|\s+(?P<numerator>\d+)\s*/\s*(?P<below>\d+))?"
    r"\s*(?P<percent>%|percent\b)?\s*(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_LAST_NUMBER = re.compile(r"-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?")
_calculate = Calculator()


class Checker(Protocol):
    """Says whether two answers are the same one."""

    def equal(self, a: str, b: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Value:
    """A number, exactly, as it is written, and what it counts: a unit of `UNITS`, a word, or "" for nothing."""

    number: Fraction
    unit: str = ""

    def equals(self, other: Value, tolerance: float = 0.0) -> bool:
        """Whether both say the same; where one has no unit, that of the other is taken for granted."""
        a, b = self.number, other.number
        if self.unit and other.unit:
            (base, factor), (other_base, other_factor) = (UNITS.get(one.unit, (one.unit, 1)) for one in (self, other))
            if base != other_base:
                return False
            a, b = a * factor, b * other_factor
        return a == b or (tolerance > 0 and abs(a - b) <= Fraction(tolerance) * max(abs(a), abs(b)))


@dataclass(frozen=True)
class Answers:
    """The checker of this package. tolerance: relative difference up to which numbers are the same (0: none).

    latex: asked about texts with LaTeX in them that are not plainly the same, such as `latex.equal`.
    """

    tolerance: float = 0.0
    latex: Callable[[str, str], bool] | None = None

    def equal(self, a: str, b: str) -> bool:
        """Whether `a` and `b` are the same answer. Never raises for what a text says."""
        first, second = value(a), value(b)
        if first is not None and second is not None:
            return first.equals(second, self.tolerance)
        if first is None and second is None and (words := _words(a)) and words == _words(b):
            return True
        return self.latex is not None and ("\\" in a or "\\" in b) and self.latex(a, b)


def value(text: str) -> Value | None:
    """The number that a text is, with its unit; None where it is none. `3 * 4` is 12, as any expression of the calculator."""
    return None if len(text) > MAX_CHARACTERS else _value(text)


@lru_cache(maxsize=4096)  # votes compare the same few texts over and over
def _value(text: str) -> Value | None:
    text = _plain(text)
    return _number(text) or _expression(text) if text else None


def final_answer(text: str, last_number: bool = False) -> str | None:
    """What a worked solution says is its answer: behind the last `####`, `Answer:` or in `\\boxed{}`, to the end of the line.

    last_number: where nothing marks it, the last number of the text. None where there is no answer.
    """
    marks = list(_MARKS.finditer(text[-(2**16) :]))
    if marks:
        rest = text[-(2**16) :][marks[-1].end() :]
        found = _braced(rest) if marks[-1][0].startswith("\\boxed") else rest.strip().split("\n", 1)[0]
        found = found.strip().strip("*").removesuffix(".").strip()
        return found[:MAX_CHARACTERS] or None
    if last_number and (numbers := _LAST_NUMBER.findall(text[-(2**16) :])):
        return numbers[-1]
    return None


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s.+-]", " ", text[:MAX_CHARACTERS].casefold()).split()).strip(". ")


def _plain(text: str) -> str:
    text = text.strip().strip("$").strip() if text.count("$") == 2 else text.strip()
    text = text.replace("\u2212", "-").replace("\\%", "%").replace("\\$", "$").replace("\\!", "").replace("{,}", ",")
    if text.startswith("\\boxed{"):
        text = _braced(text[len("\\boxed{") :])
    return _FRACTION.sub(r"(\1)/(\2)", text).removesuffix(".").strip()


def _number(text: str) -> Value | None:
    found = _NUMBER.fullmatch(text)
    if found is None or (found["whole"] is None and found["decimals"] is None) or (found["sign"] and found["second"]):
        return None
    exponent = int(found["exponent"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    number = Fraction((found["whole"] or "0").replace(",", "") + (found["decimals"] or "")) * Fraction(10) ** exponent
    below = found["denominator"] or found["below"]
    if below is not None:
        if not int(below):
            return None
        number = number / int(below) if found["denominator"] else number + Fraction(int(found["numerator"]), int(below))
    if found["percent"]:
        number /= 100
    if "-" in (found["sign"], found["second"]):
        number = -number
    unit = found["unit"].strip().strip(".").casefold()
    if not unit:
        return Value(number)
    if unit in UNITS:
        return Value(number, unit)
    # words, not the rest of an expression: `3 apples`, `4 red cars`, but not `3 * 4` nor `3) + 1`
    return Value(number, unit.removesuffix("s")) if re.fullmatch(r"[^\W\d_]+(?:[ -][^\W\d_]+){0,3}", unit) else None


def _expression(text: str) -> Value | None:
    if "=" in text:
        text = text.rpartition("=")[2].strip()
    try:
        return Value(_calculate.evaluate(text))
    except CalculatorError:
        return None


def _braced(rest: str) -> str:
    """`rest` up to the brace that closes one opened before it."""
    depth = 1
    for at, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[:at]
    return rest
