"""The calculator follows its grammar exactly, prints by its stated rule, and refuses the rest with a reason.

References: Python's own arithmetic on Fractions for precedence, Python's decimal module for what is printed.
"""

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyreason import Calculator, CalculatorError
from tinyreason.calculator import format_number

calculate = Calculator()


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1,234 * 2", "2468"),
        ("347 * 892", "309524"),
        ("0.1 + 0.2", "0.3"),
        ("48/2", "24"),
        ("3 × 4 ÷ 2", "6"),
        ("10 − 4", "6"),
        ("50% of 80", "40"),
        ("200 * 15%", "30"),
        ("-50% of 80", "-40"),
        ("7 % 3", "1"),
        ("-7 % 3", "2"),
        ("-7 // 2", "-4"),
        ("7.5 % 2", "1.5"),
        ("5 % (3)", "2"),
        ("5% - 3", "-2.95"),
        ("-2 ** 2", "-4"),
        ("2 ^ 3 ^ 2", "512"),
        ("2 ** -1", "0.5"),
        ("0 ** 0", "1"),
        ("- - 3", "3"),
        ("5! / 3!", "20"),
        ("-3!", "-6"),
        (".5 + 1. + 2e3", "2001.5"),
        ("1,234,567.50", "1234567.5"),
        ("max(1,234)", "234"),
        ("max((1,234), 5)", "1234"),
        ("min(3, 1/2, 2)", "0.5"),
        ("round(2.5) + round(-2.5)", "0"),
        ("round(2.675, 2)", "2.68"),
        ("round(12345, -2)", "12300"),
        ("floor(-1.5) + ceil(-1.5) + abs(-3)", "0"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("factorial(20)", "2432902008176640000"),
        ("sqrt(2)", "1.41421356237"),
        ("sqrt(0.0049)", "0.07"),
        ("floor(8 ** (1/3))", "2"),
        ("(4/9) ** -1.5", "3.375"),
        ("sqrt(2) ** 2", "2"),
        ("log10(1000) + log2(8) + log(81, 3) + ln(e)", "11"),
        ("round(exp(1) - e, 40)", "0"),
        ("pi * 2 ** 2", "12.5663706144"),
        ("10 / 3", "3.33333333333"),
        ("2 / 3", "0.666666666667"),
        ("-1 / 700", "-0.00142857142857"),
        ("123456789012345 / 7", "17636684144621"),
        ("2 ** -20", "0.00000095367431640625"),
        ("1/7 * 7", "1"),
        ("  ( 1 )\t", "1"),
    ],
)
def test_results(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "the expression is empty"),
        ("1 +", "ends where a number should follow"),
        ("(1", "')' is missing"),
        ("1)", "unexpected ')'"),
        ("1 2", "unexpected '2'"),
        ("2(3)", "unexpected '('"),
        ("* 2", "unexpected '*'"),
        ("of 2", "unexpected 'of'"),
        ("3 x 4", "unexpected 'x'"),
        ("1,23", "unexpected ','"),
        ("1,2345", "unexpected ','"),
        ("0,123", "unexpected ','"),
        ("1,234,5", "unexpected ','"),
        ("0.5.5", "unexpected '.5'"),
        ("$5", "unexpected character '$'"),
        ("٣ + 1", "unexpected character '٣'"),
        ("1\x1b", r"unexpected character '\x1b'"),
        ("foo(2)", "unknown name 'foo'"),
        ("sqrt 2", "'(' is missing"),
        ("sqrt(1, 2)", "sqrt takes 1 arguments, not 2"),
        ("round(1, 2, 3)", "round takes 1 to 2 arguments, not 3"),
        ("log(100)", "log takes 2 arguments, not 1"),
        ("max()", "unexpected ')'"),
        ("1 / 0", "division by zero"),
        ("1 // 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("0 ** -0.5", "division by zero"),
        ("sqrt(-1)", "the square root of a negative number is not real"),
        ("(-8) ** (1/3)", "a negative number to a fractional power is not real"),
        ("ln(0)", "a logarithm needs a positive number"),
        ("log(2, 1)", "a positive base other than 1"),
        ("gcd(1.5, 2)", "gcd and lcm need whole numbers"),
        ("2.5!", "factorial needs a whole number from 0 to 300"),
        ("301!", "factorial needs a whole number from 0 to 300"),
        ("round(1, 1001)", "round needs a whole number of places"),
        ("1" * 41, "a number has more than 40 digits"),
        ("1e1001", "a number's exponent is beyond 1000"),
        ("1e999999999", "a number's exponent is beyond 1000"),
        ("1+" * 256 + "1", "513 characters are more than 512"),
        ("(" * 41 + "1" + ")" * 41, "nested deeper than 40"),
        ("-" * 41 + "1", "nested deeper than 40"),
        ("**".join("1" * 42), "nested deeper than 40"),
    ],
)
def test_refusals_carry_one_reason(expression: str, reason: str) -> None:
    with pytest.raises(CalculatorError, match=re.escape(reason)) as caught:
        calculate(expression)
    assert "\n" not in str(caught.value)


def test_bounds_are_where_they_are_said_to_be() -> None:
    assert calculate("(" * 40 + "1" + ")" * 40) == "1"
    assert calculate("1+" * 255 + "1") == "256"
    assert calculate("1" * 40) == "1" * 40
    assert calculate("2 ** 4095") == str(2**4095)
    assert calculate("factorial(300) / factorial(298)") == "89700"
    with pytest.raises(CalculatorError, match="4096 bits"):
        calculate("2 ** 4096")


def test_text_is_required() -> None:
    with pytest.raises(CalculatorError, match="expected an expression as text, not int"):
        calculate(5)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    "annotation",
    ["48/2=24", "0.2*50=10", "100-50-30-15=5", "(75/100)*100=75", ".5*10=5", "20*.05=1", "18+9=27.00"],
)
def test_replays_annotations_of_worked_solutions(annotation: str) -> None:
    """The notation of GSM8K's <<expression=result>> marks."""
    expression, _, result = annotation.rpartition("=")
    assert calculate.evaluate(expression) == calculate.evaluate(result)


numbers = st.one_of(
    st.integers(0, 99).map(str),
    st.decimals(0, 99, places=2).map(str),
    st.integers(1, 99).map(lambda value: f"(-{value})"),
)
# Not "%-": after a percent sign a sign is an operator here, so "5% - 3" means what people mean by it.
OPERATORS = [" + ", "-", "*", " / ", "//", " % ", "*-", " - -", "/-", "//+"]
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        st.tuples(numbers, st.sampled_from(["**0", "**2", "**-1"])).map("".join),
    ),
    max_leaves=12,
)


@given(st.one_of(expressions, expressions.map("-{}".format)))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_precedence_and_values_are_pythons_on_fractions(text: str) -> None:
    exact = re.sub(r"\*\*(-?\d)|(\d+(?:\.\d+)?)", lambda m: m.group(0) if m.group(1) else f"F('{m.group(2)}')", text)
    try:
        expected = eval(exact, {"F": Fraction})  # noqa: S307 - Python is the reference; the text is ours
    except ZeroDivisionError:
        with pytest.raises(CalculatorError, match="division by zero"):
            calculate(text)
    else:
        assert calculate.evaluate(text) == expected


@given(st.fractions())
@settings(deadline=None, derandomize=True, max_examples=300)
def test_printed_value_is_within_half_a_unit_of_the_last_place(value: Fraction) -> None:
    printed = format_number(value)
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", printed)
    error = abs(Fraction(printed) - value)
    adjusted = Decimal(printed).adjusted() if Fraction(printed) else 0
    assert error <= Fraction(10) ** min(0, adjusted - 11) / 2


@given(st.decimals(-(10**9), 10**9, places=20))
@settings(deadline=None, derandomize=True)
def test_decimals_of_twenty_places_print_in_full(value: Decimal) -> None:
    assert Decimal(format_number(Fraction(value))) == value
