"""How well scores rank: the area under the ROC curve."""

from __future__ import annotations

import math
from collections.abc import Sequence


def roc_auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The probability that a right one of two is scored higher, equal scores counting half (Mann-Whitney's U over pairs).

    NaN where there are no right or no wrong ones. Raises ValueError for sequences of different lengths and scores that are
    NaN.
    """
    if len(scores) != len(right):
        raise ValueError(f"roc_auc: {len(scores)} scores for {len(right)} labels")
    if any(math.isnan(score) for score in scores):
        raise ValueError("roc_auc: a score is not a number")
    positives = sum(map(bool, right))
    negatives = len(right) - positives
    if not positives or not negatives:
        return math.nan
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    ranks, at = 0.0, 0
    while at < len(order):
        stop = at
        while stop < len(order) and scores[order[stop]] == scores[order[at]]:
            stop += 1
        # those with equal scores share the mean of the ranks at + 1 .. stop
        ranks += (at + 1 + stop) / 2 * sum(bool(right[index]) for index in order[at:stop])
        at = stop
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)
