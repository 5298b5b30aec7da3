"""Arithmetic by number of digits and operation: every cell of the grid gets equally many items.

Operands of d digits lie in 10^(d-1) ... 10^d - 1 (of one digit: 0 ... 9). A difference is never below zero; a quotient is
exact, and its divisor and its value have d digits (not zero), so that the dividend has up to 2 d.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from tinyeval.items import Item

OPERATIONS = ("+", "-", "*", "/")
MAX_DIGITS = 12


def arithmetic(
    *, seed: int, items: int, digits: Sequence[int] = (1, 2, 3), operations: Sequence[str] = OPERATIONS
) -> Iterator[Item]:
    """Items "12 + 7" with the answer "19", of each number of ``digits`` and each operation in turn.

    A question comes again only where a cell has hardly another (sums of one digit: 100).

    Raises ValueError for other operations or digits.
    """
    unknown = next((one for one in operations if one not in OPERATIONS), None)
    if unknown is not None or not operations:
        raise ValueError(f"operations: {unknown!r} is none of {' '.join(OPERATIONS)}")
    if not digits or not all(isinstance(one, int) and 1 <= one <= MAX_DIGITS for one in digits):
        raise ValueError(f"digits: {digits} are not between 1 and {MAX_DIGITS}")
    chance = random.Random(f"arithmetic {seed}")
    asked: set[str] = set()
    for number, (length, operation) in enumerate(itertools.islice(itertools.cycle(_cells(digits, operations)), items)):
        for _ in range(100):  # 100 single digit sums are soon all asked
            question, value = _drawn(chance, length, operation)
            if question not in asked:
                break
        asked.add(question)
        yield Item(f"{number}", question, answer=str(value), meta={"digits": length, "operation": operation})


def _cells(digits: Sequence[int], operations: Sequence[str]) -> list[tuple[int, str]]:
    return list(itertools.product(digits, operations))


def _drawn(chance: random.Random, digits: int, operation: str) -> tuple[str, int]:
    low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
    a, b = chance.randint(low, high), chance.randint(low, high)
    if operation == "+":
        return f"{a} + {b}", a + b
    if operation == "-":
        return f"{max(a, b)} - {min(a, b)}", abs(a - b)
    if operation == "*":
        return f"{a} * {b}", a * b
    a, b = max(a, 1), max(b, 1)
    return f"{a * b} / {b}", a
