"""Exact calculator for text that a model wrote: a small grammar over rationals, never Python's ``eval``.

    sum      = product { ("+" | "-") product }
    product  = signed { ("*" | "/" | "//" | "%" | "of") signed }
    signed   = ("+" | "-") signed | power
    power    = postfix [ "**" signed ]                  right associative, binds tighter than a sign before it
    postfix  = atom { "!" | "%" }
    atom     = number | constant | function "(" sum { "," sum } ")" | "(" sum ")"

``**`` may be written ``^``, ``*`` as ``×`` or ``·``, ``/`` as ``÷``. A ``%`` is a remainder where an operand
follows it (a number, a name or a parenthesis) and a hundredth otherwise: ``7 % 3`` is 1 and ``50% of 80`` is
40. A comma separates arguments inside a function's own parentheses; elsewhere it groups digits by three
(``1,234``).

Values are Fractions, so 0.1 + 0.2 is 0.3. The text is hostile until proven otherwise: length, nesting and
the size of every number are bounded before anything is computed (here and in :mod:`tinyreason.rational`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from tinyreason import rational
from tinyreason.rational import CONSTANTS, FUNCTIONS, CalculatorError, bounded

MAX_CHARACTERS = 512
MAX_DEPTH = 40
MAX_LITERAL_DIGITS = 40
MAX_LITERAL_EXPONENT = 1000

EXACT_PLACES = 20  # a decimal that ends within so many places prints in full
SIGNIFICANT_DIGITS = 12  # of any other


class Calculator:
    """Callable from an expression to its result as text: ``Calculator()("1,234 * 2")`` is ``"2468"``."""

    def __call__(self, expression: str) -> str:
        """Evaluate and format (see :func:`format_number`). Raises CalculatorError with the reason."""
        return format_number(self.evaluate(expression))

    def evaluate(self, expression: str) -> Fraction:
        """The value itself. Raises CalculatorError for text outside the grammar or beyond a bound."""
        if not isinstance(expression, str):
            raise CalculatorError(f"expected an expression as text, not {type(expression).__name__}")
        if len(expression) > MAX_CHARACTERS:
            raise CalculatorError(f"{len(expression)} characters are more than {MAX_CHARACTERS}")
        return _Parser(_tokens(expression)).result()


def format_number(value: Fraction) -> str:
    """Integers and decimals that end within 20 places in full, without grouping or exponent.

    Any other value is rounded to 12 significant digits, but never short of its integer part, halves away from
    zero, and loses trailing zeros: 2/3 is 0.666666666667.
    """
    places = _places(value.denominator)
    if places is None or places > EXACT_PLACES:
        places = max(0, SIGNIFICANT_DIGITS - 1 - rational.to_decimal(value).adjusted())
    digits = str(abs(rational.rounded(value * 10**places)).numerator).zfill(places + 1)
    whole, fraction = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    return ("-" if value < 0 else "") + whole + ("." + fraction if fraction else "")


def _places(denominator: int) -> int | None:
    """Decimal places of 1 / denominator, None where they do not end."""
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


@dataclass(frozen=True)
class _Token:
    text: str
    value: Fraction | None = None  # of a number

    @property
    def starts_operand(self) -> bool:
        return self.value is not None or self.text == "(" or self.text in FUNCTIONS or self.text in CONSTANTS


_SPELLINGS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})
_DECIMALS = r"(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_PLAIN = re.compile(rf"(?:[0-9]+{_DECIMALS}|\.[0-9]+(?:[eE][+-]?[0-9]+)?)")
_GROUPED = re.compile(rf"[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+(?![0-9]){_DECIMALS}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*|\*\*|//|[-+*/%!(),]")
_END = _Token("")


def _tokens(expression: str) -> list[_Token]:
    text = expression.translate(_SPELLINGS)
    tokens: list[_Token] = []
    in_arguments: list[bool] = []  # for every open parenthesis: does it hold a function's arguments?
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return tokens
        number = None if in_arguments and in_arguments[-1] else _GROUPED.match(text, at)
        number = number or _PLAIN.match(text, at)
        word = number or _WORD.match(text, at)
        if word is None:
            raise CalculatorError(f"unexpected character {text[at]!r}")
        if number:
            tokens.append(_Token(number.group(), _literal(number.group())))
        else:
            if word.group() == "(":
                in_arguments.append(bool(tokens) and tokens[-1].text in FUNCTIONS)
            elif word.group() == ")" and in_arguments:
                in_arguments.pop()
            tokens.append(_Token(word.group()))
        at = word.end()


def _literal(text: str) -> Fraction:
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if sum(character.isdigit() for character in mantissa) > MAX_LITERAL_DIGITS:
        raise CalculatorError(f"a number has more than {MAX_LITERAL_DIGITS} digits")
    if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_LITERAL_EXPONENT:
        raise CalculatorError(f"a number's exponent is beyond {MAX_LITERAL_EXPONENT}")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


@dataclass(frozen=True)
class _Infix:
    binding: int
    compute: Callable[[Fraction, Fraction], Fraction]
    right: int  # how tightly its right operand must bind


_SUM, _PRODUCT, _SIGN, _POWER = 1, 2, 3, 4
_INFIX: dict[str, _Infix] = {
    "+": _Infix(_SUM, operator.add, _PRODUCT),
    "-": _Infix(_SUM, operator.sub, _PRODUCT),
    "*": _Infix(_PRODUCT, operator.mul, _SIGN),
    "of": _Infix(_PRODUCT, operator.mul, _SIGN),
    "/": _Infix(_PRODUCT, rational.divide, _SIGN),
    "//": _Infix(_PRODUCT, rational.floor_divide, _SIGN),
    "%": _Infix(_PRODUCT, rational.remainder, _SIGN),
    "**": _Infix(_POWER, rational.power, _SIGN),
}


class _Parser:
    """Precedence climbing that computes as it reads: no tree is kept."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def result(self) -> Fraction:
        if not self._tokens:
            raise CalculatorError("the expression is empty")
        value = self._expression(_SUM)
        if self._next is not _END:
            raise CalculatorError(f"unexpected {self._next.text!r}")
        return value

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if self._take().text != text:
            raise CalculatorError(f"{text!r} is missing")

    def _expression(self, binding: int) -> Fraction:
        """Everything that binds at least so tightly."""
        if self._next.text in ("+", "-"):
            negative = self._take().text == "-"
            value = self._nested(_SIGN)
            value = -value if negative else value
        else:
            value = self._postfix(self._atom())
        while (infix := _INFIX.get(self._next.text)) and infix.binding >= binding:
            self._take()
            # Only powers nest to the right; the other operands end at the next operator of their own rank.
            operand = self._nested if infix.binding == _POWER else self._expression
            value = bounded(infix.compute(value, operand(infix.right)))
        return value

    def _nested(self, binding: int) -> Fraction:
        """An expression inside another: what hostile text would repeat until the stack is full."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculatorError(f"nested deeper than {MAX_DEPTH}")
        value = self._expression(binding)
        self._depth -= 1
        return value

    def _postfix(self, value: Fraction) -> Fraction:
        while True:
            if self._next.text == "!":
                self._take()
                value = rational.factorial(value)
            elif self._next.text == "%" and not self._operand_after_next():
                self._take()
                value = bounded(value / 100)
            else:
                return value

    def _operand_after_next(self) -> bool:
        after = self._at + 1
        return after < len(self._tokens) and self._tokens[after].starts_operand

    def _atom(self) -> Fraction:
        token = self._take()
        if token.value is not None:
            return bounded(token.value)
        if token.text in CONSTANTS:
            return CONSTANTS[token.text]
        if token.text in FUNCTIONS:
            return self._call(token.text)
        if token.text == "(":
            value = self._nested(_SUM)
            self._expect(")")
            return value
        if token is _END:
            raise CalculatorError("the expression ends where a number should follow")
        if token.text[0].isalpha() and token.text not in _INFIX:
            known = ", ".join((*FUNCTIONS, *CONSTANTS))
            raise CalculatorError(f"unknown name {token.text!r}; known are {known}")
        raise CalculatorError(f"unexpected {token.text!r}")

    def _call(self, name: str) -> Fraction:
        function = FUNCTIONS[name]
        self._expect("(")
        arguments = [self._nested(_SUM)]
        while self._next.text == ",":
            self._take()
            arguments.append(self._nested(_SUM))
        self._expect(")")
        if function.most is not None and not function.least <= len(arguments) <= function.most:
            expected = " to ".join(dict.fromkeys((str(function.least), str(function.most))))
            raise CalculatorError(f"{name} takes {expected} arguments, not {len(arguments)}")
        return bounded(function.compute(*arguments))
