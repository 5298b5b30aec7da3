"""Bounded exact arithmetic on Fractions: what the calculator computes with.

Every operation refuses, before it starts, what would take long or much memory, and every result is at most
MAX_BITS long in numerator and denominator. Roots are exact where a rational root exists; other irrational
results are decimals of DECIMAL_DIGITS digits, the same on every machine. Only real results exist.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

MAX_BITS = 4096
MAX_FACTORIAL = 300
MAX_PLACES = 1000  # of round(), in either direction
DECIMAL_DIGITS = 50

_CONTEXT = decimal.Context(
    prec=DECIMAL_DIGITS,
    Emax=1300,  # 10**1300 is past MAX_BITS: a larger decimal must not become an integer first
    Emin=-1300,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.Underflow],
)


class CalculatorError(ValueError):
    """Why an expression has no result, in one line."""


def bounded(value: Fraction) -> Fraction:
    """``value``, or CalculatorError when it is longer than MAX_BITS."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise CalculatorError(f"a number grew past {MAX_BITS} bits")
    return value


def divide(left: Fraction, right: Fraction) -> Fraction:
    """left / right."""
    return left / _nonzero(right)


def floor_divide(left: Fraction, right: Fraction) -> Fraction:
    """The quotient rounded towards minus infinity."""
    return Fraction(left // _nonzero(right))


def remainder(left: Fraction, right: Fraction) -> Fraction:
    """left - right * floor_divide(left, right): zero or of the divisor's sign."""
    return left % _nonzero(right)


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base to the exponent; the size is estimated before anything is multiplied."""
    if base == 0 and exponent < 0:
        raise CalculatorError("division by zero")
    if exponent.denominator > 1:
        if base < 0:
            raise CalculatorError("a negative number to a fractional power is not real")
        root = _exact_root(base, exponent.denominator)
        if root is None:
            return _from_decimal(lambda: _CONTEXT.power(to_decimal(base), to_decimal(exponent)))
        base, exponent = root, Fraction(exponent.numerator)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if (bits - 1) * abs(exponent) > MAX_BITS:
        raise CalculatorError(f"a power would grow past {MAX_BITS} bits")
    return base**exponent.numerator


def factorial(value: Fraction) -> Fraction:
    """1 * 2 * ... * value."""
    if value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise CalculatorError(f"factorial needs a whole number from 0 to {MAX_FACTORIAL}")
    return Fraction(math.factorial(value.numerator))


def rounded(value: Fraction, places: Fraction = Fraction(0)) -> Fraction:
    """``value`` to so many decimal places, halves away from zero (the school's rule, not the banker's)."""
    if places.denominator != 1 or abs(places) > MAX_PLACES:
        raise CalculatorError(f"round needs a whole number of places, at most {MAX_PLACES}")
    unit = Fraction(10) ** -places.numerator
    nearest = math.floor(abs(value) / unit + Fraction(1, 2)) * unit
    return nearest if value >= 0 else -nearest


def to_decimal(value: Fraction) -> decimal.Decimal:
    """The nearest decimal of DECIMAL_DIGITS digits."""
    return _CONTEXT.divide(decimal.Decimal(value.numerator), decimal.Decimal(value.denominator))


def _nonzero(value: Fraction) -> Fraction:
    if value == 0:
        raise CalculatorError("division by zero")
    return value


def _from_decimal(compute: Callable[[], decimal.Decimal]) -> Fraction:
    try:
        return Fraction(compute())
    except (decimal.Overflow, decimal.Underflow):
        raise CalculatorError(f"a number grew past {MAX_BITS} bits") from None
    except (decimal.InvalidOperation, decimal.DivisionByZero):
        raise CalculatorError("the result is not a real number") from None


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    above = _integer_root(value.numerator, degree)
    below = _integer_root(value.denominator, degree)
    return None if above is None or below is None else Fraction(above, below)


def _integer_root(value: int, degree: int) -> int | None:
    """The exact root of a non-negative integer by Newton's iteration, None where there is none."""
    if value < 2:
        return value
    if degree >= value.bit_length():  # the root lies between 1 and 2
        return None
    root = 1 << -(-value.bit_length() // degree)  # not below the root, so the iteration descends to its floor
    while True:
        lower = ((degree - 1) * root + value // root ** (degree - 1)) // degree
        if lower >= root:
            return root if root**degree == value else None
        root = lower


def _square_root(value: Fraction) -> Fraction:
    if value < 0:
        raise CalculatorError("the square root of a negative number is not real")
    return power(value, Fraction(1, 2))


def _logarithm(value: Fraction, base: Fraction) -> Fraction:
    if value <= 0 or base <= 0 or base == 1:
        raise CalculatorError("a logarithm needs a positive number and a positive base other than 1")
    return _from_decimal(lambda: _CONTEXT.divide(_ln(value), _ln(base)))


def _ln(value: Fraction) -> decimal.Decimal:
    return _CONTEXT.ln(to_decimal(value))


def _natural_logarithm(value: Fraction) -> Fraction:
    if value <= 0:
        raise CalculatorError("a logarithm needs a positive number")
    return _from_decimal(lambda: _ln(value))


def _exponential(value: Fraction) -> Fraction:
    return _from_decimal(lambda: _CONTEXT.exp(to_decimal(value)))


def _integers(values: tuple[Fraction, ...]) -> list[int]:
    if any(value.denominator != 1 for value in values):
        raise CalculatorError("gcd and lcm need whole numbers")
    return [value.numerator for value in values]


@dataclass(frozen=True)
class Function:
    """A named function and the numbers of arguments it takes (``most`` None: one or more)."""

    compute: Callable[..., Fraction]
    least: int = 1
    most: int | None = 1


FUNCTIONS: dict[str, Function] = {
    "abs": Function(abs),
    "ceil": Function(lambda value: Fraction(math.ceil(value))),
    "exp": Function(_exponential),
    "factorial": Function(factorial),
    "floor": Function(lambda value: Fraction(math.floor(value))),
    "gcd": Function(lambda *values: Fraction(math.gcd(*_integers(values))), most=None),
    "lcm": Function(lambda *values: Fraction(math.lcm(*_integers(values))), most=None),
    "ln": Function(_natural_logarithm),
    "log": Function(_logarithm, least=2, most=2),
    "log10": Function(lambda value: _logarithm(value, Fraction(10))),
    "log2": Function(lambda value: _logarithm(value, Fraction(2))),
    "max": Function(lambda *values: max(values), most=None),
    "min": Function(lambda *values: min(values), most=None),
    "round": Function(rounded, most=2),
    "sqrt": Function(_square_root),
}

CONSTANTS: dict[str, Fraction] = {
    "e": Fraction("2.7182818284590452353602874713526624977572470936999"),
    "pi": Fraction("3.1415926535897932384626433832795028841971693993751"),
}
