"""What is practised when, as values of a recipe (`tinydata.curriculum` says what comes of them)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

from apps.common.config_fields import below_one, described
from tinycore.config import ConfigError

Measure = Literal["steps", "length", "difficulty"]


@dataclass(frozen=True, kw_only=True)
class PracticeStage:
    """A part of the run, and what is new in it. A problem belongs to the first stage that takes it."""

    until: float = described("share of the run at which it ends; the last one's is 1")
    depth: tuple[float, float] = described(
        "least and most of what is measured: calculations, tokens of the answer, or 1 - the pass rate",
        (0.0, float(10**9)),
    )
    kinds: tuple[str, ...] = described("only problems of these kinds; none: of all", ())
    forms: tuple[str, ...] = described("only solutions in these forms; none: in all", ())

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ConfigError(f"until: {self.until} is not above 0 and at most 1")
        if not 0 <= self.depth[0] <= self.depth[1]:
            raise ConfigError(f"depth: {list(self.depth)} is not from one number to a larger one")


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Stages of rising difficulty, each with some of what came before; a function of the step and the seed alone."""

    stages: tuple[PracticeStage, ...] = field(metadata={"help": "one after another"})
    by: Measure = field(
        default="steps",
        metadata={
            "help": "how deep a problem is: its calculations, tokens of its answer, or how seldom a run solved it"
        },
    )
    replay: float = described("share of every stage but the first that is from the stages before it", 0.25)
    measured: str | None = described(
        "for difficulty: JSONL with prompt and pass_rate a line, as apps/prepare --solved-by writes it", None
    )

    def __post_init__(self) -> None:
        below_one(self, "replay")
        ends = [stage.until for stage in self.stages]
        if not ends or any(one >= after for one, after in itertools.pairwise(ends)) or ends[-1] != 1:
            raise ConfigError(f"stages: end at {', '.join(f'{end:g}' for end in ends)}; these must grow, up to 1")
        if (self.by == "difficulty") != (self.measured is not None):
            raise ConfigError("measured: is what difficulty is measured by, and nothing else; give both or neither")
