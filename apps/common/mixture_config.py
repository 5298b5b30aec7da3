"""How much of a source there is over a run, as values of a recipe (`tinydata.mixture` says what they mean)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from apps.common.config_fields import described
from tinycore.config import ConfigError, Family
from tinydata.mixture import Constant, Early, Linear, Mixture, MixtureError, Piecewise, Weight


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


@dataclass(frozen=True, kw_only=True)
class MixtureStage:
    """A part of the run with weights of its own. A source that it does not name has none in it."""

    until: float = described("share of the run at which it ends; the last one's is 1")
    weights: dict[str, float] = field(metadata={"help": "of sources by name, beside one another"})

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ConfigError(f"until: {self.until} is not above 0 and at most 1")
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ConfigError(f"weights: {weight} of '{name}' is negative")
        if not sum(self.weights.values()) > 0:
            raise ConfigError("weights: sum to zero, so there is nothing to draw from")


def staged(stages: Sequence[MixtureStage]) -> Mixture:
    """The mixture that stages are: weights are shares of their stage, level within it, with a step at each border.

    Raises MixtureError for stages that do not follow one another up to the end of the run.
    """
    ends = [stage.until for stage in stages]
    if any(one >= after for one, after in itertools.pairwise(ends)) or ends[-1] != 1:
        raise MixtureError(f"stages end at {', '.join(f'{end:g}' for end in ends)}; these must grow, up to 1")
    names = dict.fromkeys(name for stage in stages for name in stage.weights)
    spans = list(zip([0.0, *ends], ends, stages, strict=False))
    return Mixture(
        {
            name: Piecewise(tuple((at, _share(stage, name)) for begin, end, stage in spans for at in (begin, end)))
            for name in names
        }
    )


def _share(stage: MixtureStage, name: str) -> float:
    return stage.weights.get(name, 0.0) / sum(stage.weights.values())
