"""Pairwise covering arrays: few combinations in which every two values of different factors meet.

Most faults of interaction need only two factors to show (Kuhn, Wallace, Gallo 2004), and the rows that cover all pairs
grow with the logarithm of the number of factors, where all combinations grow exponentially.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

Pair = tuple[tuple[str, str], tuple[str, str]]  # (factor, value), (factor, value), in the factors' order


def covering_array(factors: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Rows {factor: value} such that every pair of values of two different factors occurs in at least one row.

    Greedy and deterministic: each row starts from a pair that is still missing and takes, factor by factor, the value
    that covers most missing pairs. Raises ValueError for a factor without values.
    """
    for name, values in factors.items():
        if not values:
            raise ValueError(f"{name}: a factor needs at least one value")
    names = list(factors)
    if len(names) == 1:
        return [{names[0]: value} for value in factors[names[0]]]
    missing: dict[Pair, None] = {
        ((a, x), (b, y)): None for a, b in combinations(names, 2) for x in factors[a] for y in factors[b]
    }  # a dict, since the order of a set is not reproducible
    rows = []
    while missing:
        first, second = next(iter(missing))
        row = dict([first, second])
        for name in names:
            if name not in row:
                row[name] = max(factors[name], key=lambda value: _gain(row, name, value, names, missing))
        for a, b in combinations(names, 2):
            missing.pop(((a, row[a]), (b, row[b])), None)
        rows.append({name: row[name] for name in names})
    return rows


def _gain(row: dict[str, str], name: str, value: str, names: list[str], missing: Mapping[Pair, None]) -> int:
    """How many missing pairs `value` would cover with what the row already holds."""
    count = 0
    for other, chosen in row.items():
        pair = ((other, chosen), (name, value))
        if names.index(other) > names.index(name):
            pair = (pair[1], pair[0])
        count += pair in missing
    return count
