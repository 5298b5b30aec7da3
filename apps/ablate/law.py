"""Bits per byte over size as a law, L(N) = E + A N^-a, fitted to the smaller sizes and asked for the next.

Least squares over every seed's result; for each exponent of a grid, then of a finer one around the best, E and A are the
solution of a linear problem, E at least 0. N are all parameters. What the law says of the largest size, which it has not seen,
stands beside what was measured there. The interval of the prediction is the percentile bootstrap over seeds, each with its
results of all sizes: it knows how far chance moves the fit, and nothing of whether the law is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.ablate.comparison import Row
from apps.common.console import short
from tinyeval.statistics import bootstrap_interval

EXPONENTS = (0.01, 3.0)
LEAST_SIZES = 4  # three parameters, and one size to be asked about
RESAMPLES = 400


@dataclass(frozen=True)
class Law:
    """L(N) = floor + factor (N / scale)^-exponent."""

    floor: float
    factor: float
    exponent: float
    scale: float

    def __call__(self, size: float) -> float:
        return self.floor + self.factor * (size / self.scale) ** -self.exponent


@dataclass(frozen=True)
class Check:
    """A law, the size that it was asked about, what it said (with an interval, of two seeds or more), and what was measured."""

    law: Law
    size: int
    predicted: float
    low: float | None
    high: float | None
    measured: float
    seeds: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "floor": self.law.floor,
            "factor": self.law.factor * self.law.scale**self.law.exponent,
            "exponent": self.law.exponent,
            "size": self.size,
            "predicted": self.predicted,
            "interval": None if self.low is None else [self.low, self.high],
            "measured": self.measured,
            "seeds": self.seeds,
        }

    def said(self) -> str:
        """As a sentence under the table."""
        factor = self.law.factor * self.law.scale**self.law.exponent
        interval = (
            "" if self.low is None else f" ({self.low:.4f} to {self.high:.4f} by bootstrap over {self.seeds} seeds)"
        )
        return (
            f"Law of size, fitted without the largest: L(N) = {self.law.floor:.3f} + {factor:.3g} N^-{self.law.exponent:.3f}. "
            f"Of {short(self.size)} parameters it says {self.predicted:.4f}{interval}; measured {self.measured:.4f}, "
            f"{self.measured - self.predicted:+.4f}."
        )


def fit(sizes: Sequence[float], losses: NDArray[np.float64]) -> Law:
    """The law of losses (S, K) over K sizes, S seeds."""
    scale = float(np.exp(np.mean(np.log(sizes))))
    logs = np.log(np.asarray(sizes, dtype=np.float64) / scale)
    means, low, high = np.asarray(losses, dtype=np.float64).mean(0), *EXPONENTS
    for _ in range(4):
        grid = np.geomspace(low, high, 60)
        floors, factors, errors = _linear(np.exp(-grid[:, None] * logs), means)
        best = int(np.argmin(errors))
        low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    return Law(float(floors[best]), float(factors[best]), float(grid[best]), scale)


def _linear(powers: NDArray[np.float64], means: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """E >= 0, A and the squared error of E + A x for each row x of `powers`."""
    centred = powers - powers.mean(1, keepdims=True)
    factors = (centred @ (means - means.mean())) / (centred**2).sum(1)
    floors = means.mean() - factors * powers.mean(1)
    through_zero = (powers @ means) / (powers**2).sum(1)
    factors = np.where(floors < 0, through_zero, factors)
    floors = np.maximum(floors, 0.0)
    return floors, factors, ((floors[:, None] + factors[:, None] * powers - means) ** 2).sum(1)


def check(rows: Sequence[Row]) -> Check | str:
    """The law of all sizes but the largest and what it says of that one; a sentence where there is too little for it."""
    by_size = sorted((row for row in rows if row.scores), key=lambda row: row.first.parameters)
    if len({row.first.parameters for row in by_size}) < max(LEAST_SIZES, len(by_size)):
        return f"No law of size yet: it needs {LEAST_SIZES} different sizes, each once."
    seeds = sorted(set.intersection(*(set(row.scores) for row in by_size)))
    if not seeds:
        return "No law of size yet: no seed has been trained at every size."
    *smaller, largest = by_size
    sizes = [row.first.parameters for row in smaller]
    losses = np.array([[row.scores[seed] for row in smaller] for seed in seeds])
    size = largest.first.parameters
    law = fit(sizes, losses)
    low = high = None
    if len(seeds) > 1:
        low, high = bootstrap_interval(losses, lambda drawn: fit(sizes, drawn)(size), resamples=RESAMPLES)
    measured = sum(largest.scores[seed] for seed in seeds) / len(seeds)
    return Check(law, size, law(size), low, high, measured, len(seeds))
