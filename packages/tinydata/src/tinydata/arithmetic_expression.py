"""The value of an expression such as `12/60` or `(3+.5)*20%`, exactly, by a grammar of five lines and without `eval`.

    sum     = product { ("+" | "-") product }
    product = signed { ("*" | "/" | "//") signed }       // rounds down
    signed  = { "+" | "-" } atom
    atom    = ( number | "(" sum ")" ) { "%" }           % is a hundredth
    number  = digits with an optional decimal part; 1,234 groups by three

It checks data, where `tinyreason.Calculator` is a tool for models. There is no power and no factorial: a result is hardly
longer than the expression, whose length and nesting are bounded.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARACTERS = 256
MAX_DEPTH = 20

_TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)|(//|[-+*/()%]))", re.ASCII)


class ExpressionError(ValueError):
    """Why a text has no value, in one line."""


def evaluate(expression: str) -> Fraction:
    """The exact value. Raises ExpressionError for anything outside the grammar, and for a division by zero."""
    if len(expression) > MAX_CHARACTERS:
        raise ExpressionError(f"{len(expression)} characters are more than {MAX_CHARACTERS}")
    tokens: list[str] = []
    text, at = expression.rstrip(), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at:].lstrip()[:1]!r}")
        tokens.append(match[1] or match[2])
        at = match.end()
    parser = _Parser(tokens)
    value = parser.sum(0)
    if parser.next:
        raise ExpressionError(f"unexpected {parser.next!r}")
    return value


class _Parser:
    """Computes as it reads."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._at = 0

    @property
    def next(self) -> str:
        """The token that comes, "" at the end."""
        return self._tokens[self._at]

    def sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while self.next in ("+", "-"):
            negative = self._take() == "-"
            operand = self._product(depth)
            value = value - operand if negative else value + operand
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while self.next in ("*", "/", "//"):
            operator = self._take()
            operand = self._signed(depth)
            if operator == "*":
                value *= operand
            elif not operand:
                raise ExpressionError("division by zero")
            else:
                value = value / operand if operator == "/" else Fraction(value // operand)
        return value

    def _signed(self, depth: int) -> Fraction:
        negative = False
        while self.next in ("+", "-"):
            negative ^= self._take() == "-"
        value = self._atom(depth)
        return -value if negative else value

    def _atom(self, depth: int) -> Fraction:
        token = self._take()
        if token == "(":
            if depth >= MAX_DEPTH:
                raise ExpressionError(f"nested deeper than {MAX_DEPTH}")
            value = self.sum(depth + 1)
            if self._take() != ")":
                raise ExpressionError("')' is missing")
        elif token[:1].isdigit() or token[:1] == ".":
            value = Fraction(token.replace(",", ""))
        else:
            raise ExpressionError(f"unexpected {token!r}" if token else "a number is missing at the end")
        while self.next == "%":
            self._take()
            value /= 100
        return value

    def _take(self) -> str:
        token = self.next
        self._at += bool(token)
        return token
