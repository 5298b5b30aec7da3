"""How much of a source there is over a run, as values of a recipe (`tinydata.mixture` says what they mean)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apps.common.config_fields import described
from tinycore.config import Family
from tinydata.mixture import Constant, Early, Linear, Piecewise, Weight


class WeightConfig(Family):
    """How much of a source there is, over the run."""

    default: ClassVar[str | None] = "constant"

    def weigh(self) -> Weight:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ConstantWeight(WeightConfig, kind="constant"):
    """The same weight all the time."""

    weight: float = described("beside those of the other sources")

    def weigh(self) -> Weight:
        return Constant(self.weight)


@dataclass(frozen=True, kw_only=True)
class LinearWeight(WeightConfig, kind="linear"):
    """From one weight to another."""

    start: float = described("weight at the start of the run")
    end: float = described("weight at its end")

    def weigh(self) -> Weight:
        return Linear(self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class PiecewiseWeight(WeightConfig, kind="piecewise"):
    """Straight between points; two points at one place are a step, the border of a stage."""

    points: tuple[tuple[float, float], ...] = described("pairs of progress, 0 to 1, and weight")

    def weigh(self) -> Weight:
        return Piecewise(self.points)


@dataclass(frozen=True, kw_only=True)
class EarlyShare(WeightConfig, kind="early"):
    """base (1.5 - progress) of all tokens: more at the beginning, base on average."""

    base: float = described("share of the run's tokens")

    def weigh(self) -> Weight:
        return Early(self.base)
