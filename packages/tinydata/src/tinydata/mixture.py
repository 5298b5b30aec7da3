"""Shares of several sources as functions of progress: what the next token should come from.

Progress t goes from 0 to 1 over a run. A source has a weight, and of what early sources leave it gets its part:

    constant   w                        linear   w0 + (w1 - w0) t           piecewise   between points (t, w), straight
    early      exactly base (1.5 - t)   more of it at the beginning, base on average over the run ("code early")

    share of an early source       base_i (1.5 - t)
    share of any other             (1 - sum of early shares at t) w_i(t) / sum of the others' w(t)

So the time mean of an early source's share is its base, and sources of constant weight have, on average, the share that their
weights give them of the rest. Dividing all weights by their sum at every t, as the seed does, keeps neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class MixtureError(ValueError):
    """A mixture that cannot be; one line naming the source."""


@dataclass(frozen=True)
class Constant:
    """The same weight at all times."""

    weight: float

    def __call__(self, progress: float) -> float:
        return self.weight

    @property
    def least(self) -> float:
        return self.weight


@dataclass(frozen=True)
class Linear:
    """From one weight to another."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress

    @property
    def least(self) -> float:
        return min(self.start, self.end)


@dataclass(frozen=True)
class Piecewise:
    """Straight between points (progress, weight), level before the first and after the last; two points at one progress are
    a step, which has the later weight."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, progress: float) -> float:
        before = [point for point in self.points if point[0] <= progress]
        after = [point for point in self.points if point[0] > progress]
        if not before:
            return self.points[0][1]
        (at, weight) = before[-1]
        if not after:
            return weight
        (until, later) = after[0]
        return weight + (later - weight) * (progress - at) / (until - at)

    @property
    def least(self) -> float:
        return min(weight for _, weight in self.points)


@dataclass(frozen=True)
class Early:
    """A share, not a weight: base (1.5 - progress)."""

    base: float

    def __call__(self, progress: float) -> float:
        return self.base * (1.5 - progress)

    @property
    def least(self) -> float:
        return self.base


Weight = Constant | Linear | Piecewise | Early


class Mixture:
    """Named sources with their weights; numbers are constant ones.

    Raises MixtureError for no sources, a weight that is negative or not finite, weights that sum to zero at some time, points
    out of order, and early shares that leave nothing for the others (more than 2/3 together, or without any others).
    """

    def __init__(self, weights: Mapping[str, Weight | float]) -> None:
        self.weights: dict[str, Weight] = {
            name: Constant(float(weight)) if isinstance(weight, int | float) else weight
            for name, weight in weights.items()
        }
        if not self.weights:
            raise MixtureError("mixture: no sources")
        for name, weight in self.weights.items():
            _check(name, weight)
        self._early = [name for name, weight in self.weights.items() if isinstance(weight, Early)]
        others = [weight for weight in self.weights.values() if not isinstance(weight, Early)]
        share = sum(weight.base for weight in self.weights.values() if isinstance(weight, Early))
        if share > 2 / 3 + 1e-9 or (self._early and not others):
            raise MixtureError(
                f"mixture: {', '.join(self._early)} would have {1.5 * share:.3g} of the tokens at the start; early shares are "
                "at most 2/3 together, and need another source beside them"
            )
        turns = sorted({at for weight in others for at in _turns(weight)})
        for progress in turns:
            if not sum(weight(progress) for weight in others) > 0:
                raise MixtureError(f"mixture: the weights sum to zero at {progress:.0%} of the run")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def shares(self, progress: float) -> dict[str, float]:
        """The share of the next tokens of each source at `progress`, which is taken to lie between 0 and 1; they sum to 1."""
        now = min(max(progress, 0.0), 1.0)
        values = {name: weight(now) for name, weight in self.weights.items()}
        early = sum(values[name] for name in self._early)
        others = sum(value for name, value in values.items() if name not in self._early)
        return {name: value if name in self._early else (1 - early) * value / others for name, value in values.items()}


def temperature_weights(tokens: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Weights proportional to tokens^(1 / temperature), summing to 1: 1 is by size, larger is more even (arXiv 1907.05019).

    Raises MixtureError for a temperature that is not above 0 and sources without tokens.
    """
    if not temperature > 0:
        raise MixtureError(f"temperature: {temperature} is not above 0")
    for name, count in tokens.items():
        if count < 1:
            raise MixtureError(f"{name}: has no tokens")
    logs = {name: math.log(count) / temperature for name, count in tokens.items()}
    top = max(logs.values(), default=0.0)
    sizes = {name: math.exp(value - top) for name, value in logs.items()}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def _turns(weight: Weight) -> Sequence[float]:
    """Where a weight may be least."""
    if isinstance(weight, Piecewise):
        return [0.0, *(min(max(at, 0.0), 1.0) for at, _ in weight.points), 1.0]
    return [0.0, 1.0]


def _check(name: str, weight: Weight) -> None:
    if isinstance(weight, Piecewise):
        if not weight.points:
            raise MixtureError(f"{name}: no points")
        places = [at for at, _ in weight.points]
        if places != sorted(places) or not 0 <= places[0] <= places[-1] <= 1:
            raise MixtureError(f"{name}: points are not in order between 0 and 1")
        numbers = [value for _, value in weight.points]
    else:
        numbers = [weight.start, weight.end] if isinstance(weight, Linear) else [weight.least]
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise MixtureError(f"{name}: a weight is negative or not a number")
