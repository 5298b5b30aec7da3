"""Does a model know what it knows? Expected calibration error and the reliability table (Guo et al., arXiv 1706.04599).

Predictions are sorted into `bins` equal parts of confidence, (k / bins, (k + 1) / bins], the first with its 0. With n_k of n
predictions in bin k, their mean confidence c_k and the share a_k that is right,

    ECE = sum_k n_k / n |a_k - c_k|          MCE = max_k |a_k - c_k|         Brier = mean (confidence - right)^2

An empty bin counts nothing. ECE grows with the number of bins and shrinks with n: compare only equal settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions with a confidence in (low, high]: how many, how sure on average, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Expected and largest calibration error, Brier score, and the bins that are not empty, from low to high."""

    expected_error: float
    largest_error: float
    brier: float
    table: tuple[ReliabilityBin, ...]


def calibration(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> Calibration:
    """``confidences`` in 0 to 1: the probability a model gave to the prediction that was ``right`` or not.

    Raises ValueError for no predictions, different lengths, confidences outside 0 to 1, or fewer than one bin.
    """
    sure, hit = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if sure.shape != hit.shape or sure.ndim != 1 or not sure.size:
        raise ValueError(f"calibration: {sure.size} confidences for {hit.size} outcomes")
    if not ((sure >= 0) & (sure <= 1)).all() or bins < 1:
        raise ValueError("calibration: confidences lie between 0 and 1, in at least one bin")
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    table = []
    for index in np.unique(place):
        here = place == index
        low, high = float(edges[index]), float(edges[index + 1])
        table.append(ReliabilityBin(low, high, int(here.sum()), float(sure[here].mean()), float(hit[here].mean())))
    gaps = [abs(one.accuracy - one.confidence) for one in table]
    expected = sum(one.count * gap for one, gap in zip(table, gaps, strict=True)) / sure.size
    return Calibration(expected, max(gaps), float(np.mean((sure - hit) ** 2)), tuple(table))
