"""The one word that a table says of a comparison: better, worse, or not distinguishable.

`verdict` judges one comparison that was planned alone: of models that do not differ, at most `level` are told apart.
`verdicts` judges a whole table by Holm's correction: the chance that it holds even one false verdict is at most `level`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tinyeval.statistics.many_comparisons import holm
from tinyeval.statistics.paired_items import PairedComparison

Verdict = Literal["better", "worse", "not distinguishable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def verdict(comparison: PairedComparison, *, higher_is_better: bool = True, level: float = 0.05) -> Verdict:
    """What can be said of one comparison at ``level``. Raises ValueError for a level that is not between 0 and 1."""
    return verdicts([comparison], higher_is_better=higher_is_better, level=level)[0]


def verdicts(
    comparisons: Sequence[PairedComparison],
    *,
    higher_is_better: bool | Sequence[bool] = True,
    level: float = 0.05,
) -> list[Verdict]:
    """What can be said of comparisons that are looked at together, Holm-corrected.

    higher_is_better: for all of them, or for each. Raises ValueError for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, not {level}")
    up = [higher_is_better] * len(comparisons) if isinstance(higher_is_better, bool) else list(higher_is_better)
    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        _word(comparison.mean, p <= level, better_up)
        for comparison, p, better_up in zip(comparisons, adjusted, up, strict=True)
    ]


def _word(difference: float, significant: bool, higher_is_better: bool) -> Verdict:
    if not significant or difference == 0:
        return "not distinguishable"
    return "better" if (difference > 0) == higher_is_better else "worse"
