"""What to practise when: stages of a run, each with levels of its own, and some of what came before.

    stages = [Stage(0.25, ("1 step",)), Stage(0.5, ("2 steps",)), Stage(1.0, ("3 steps", "code"))]
    Curriculum(stages, examples=20_000, replay=0.25)

    stage      of example i: the first that ends behind i; a stage ends at its share `until` of all examples
    replay     that share of every stage but the first is of levels of earlier stages, which is exact to one example at every
               moment: the r-th example of a stage is replayed if floor((r + 1) replay) > floor(r replay)
    level      new ones in turn, replayed ones in turn
    row        of the level's examples, each once before any comes again, in an order that the seed gives

All of it is computed from the number i of the example, nothing is remembered: a run that goes on at i goes on exactly. Levels
are names for sets of examples: by kind, by how long their solutions are, by how often a given model solves them (`levels_by`,
`within_reach`).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tinydata.permutation import shuffled

Key = TypeVar("Key", bound=Hashable)

_PARTS = 10**6  # the replay share is a whole number of them, so that no rounding adds up
_BLOCK = 2**16


@dataclass(frozen=True)
class Stage:
    """until: the share of the run at which it ends; levels: what is new in it."""

    until: float
    levels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Choices:
    """Of each example: stage (N,), level (N,) as a number of `Curriculum.levels`, replayed (N,) bool, and visit (N,): how many
    of the same level there were before it in its stage, replayed and new ones counted apart."""

    stage: np.ndarray
    level: np.ndarray
    replayed: np.ndarray
    visit: np.ndarray


class Curriculum:
    """Which level example i is of, for a run of `examples` examples; beyond them the last stage goes on.

    Raises ValueError for no stages, shares that do not grow to 1, a stage without levels or so short that it has no example,
    and a replay share that is not within 0 and 1.
    """

    def __init__(self, stages: Sequence[Stage], examples: int, replay: float = 0.25, seed: int = 0) -> None:
        if not stages:
            raise ValueError("curriculum: no stages")
        if not 0 <= replay < 1:
            raise ValueError(f"curriculum: replay {replay} is not at least 0 and below 1")
        for number, stage in enumerate(stages):
            if not stage.levels or len(set(stage.levels)) < len(stage.levels):
                raise ValueError(f"curriculum: stage {number} has no levels, or one of them twice")
        shares = [stage.until for stage in stages]
        if not all(one < after for one, after in itertools.pairwise([0, *shares])) or shares[-1] != 1:
            raise ValueError(f"curriculum: stages end at {shares}; these must grow, from above 0 to 1")
        self.stages, self.examples, self.seed = tuple(stages), examples, seed
        self.levels: tuple[str, ...] = tuple(dict.fromkeys(level for stage in stages for level in stage.levels))
        self._replay = round(replay * _PARTS)
        self._ends = np.array([round(share * examples) for share in shares])
        self._starts = np.array([0, *self._ends[:-1].tolist()])
        if (self._ends <= self._starts).any():
            short = int(np.argmax(self._ends <= self._starts))
            raise ValueError(f"curriculum: stage {short} has no example among {examples}")
        numbers = {level: number for number, level in enumerate(self.levels)}
        self._new = [np.array([numbers[level] for level in stage.levels]) for stage in stages]
        # a level that is new again is no replay
        self._old = [
            np.array(
                [n for n in range(len(numbers)) if n in _before(self._new, at) and n not in set(new.tolist())], int
            )
            for at, new in enumerate(self._new)
        ]

    def stage(self, example: int) -> int:
        """The number of the stage that an example is in."""
        return int(self.choices(np.array([example])).stage[0])

    def choices(self, examples: np.ndarray) -> Choices:
        """(N,) numbers of examples from 0 -> what each is to be of. Raises ValueError for numbers below 0."""
        examples = np.asarray(examples, dtype=np.int64)
        if examples.size and examples.min() < 0:
            raise ValueError(f"curriculum: there is no example {int(examples.min())}")
        stage = np.minimum(np.searchsorted(self._ends, examples, side="right"), len(self.stages) - 1)
        within = examples - self._starts[stage]
        has_old = np.array([old.size > 0 for old in self._old])[stage]
        # both are below 2^63 as long as a run has less than 9 * 10^12 examples
        replays = np.where(has_old, within * self._replay // _PARTS, 0)
        replayed = has_old & ((within + 1) * self._replay // _PARTS > replays)
        turn = np.where(replayed, replays, within - replays)
        level, visit = np.zeros_like(examples), np.zeros_like(examples)
        for at in np.unique(stage).tolist():
            for again, among in ((False, self._new[at]), (True, self._old[at])):
                chosen = (stage == at) & (replayed == again)
                if chosen.any():
                    level[chosen] = among[turn[chosen] % len(among)]
                    visit[chosen] = turn[chosen] // len(among)
        return Choices(stage, level, replayed, visit)

    def rows(self, examples: np.ndarray, sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) numbers of examples -> (N,) their levels, as numbers of `levels`, and (N,) which of the level's `sizes[level]`
        examples each is. Raises ValueError for a level without examples."""
        empty = next((level for level in self.levels if sizes.get(level, 0) < 1), None)
        if empty is not None:
            raise ValueError(f"curriculum: level {empty!r} has no examples")
        made = self.choices(examples)
        rows = np.zeros_like(made.level)
        for stage, level, again in {
            *zip(made.stage.tolist(), made.level.tolist(), made.replayed.tolist(), strict=True)
        }:
            chosen = (made.stage == stage) & (made.level == level) & (made.replayed == again)
            name = self.levels[level]
            digest = hashlib.sha256(f"curriculum {self.seed} {stage} {name} {again}".encode()).digest()
            rows[chosen] = shuffled(made.visit[chosen], sizes[name], int.from_bytes(digest[:8], "big"))
        return made.level, rows


def depth_histogram(curriculum: Curriculum, depths: Mapping[str, Sequence[int]]) -> list[dict[int, int]]:
    """How many examples of each depth every stage has, for a report: {depth: count}, by depth.

    depths: of each level's examples, in the order that `Curriculum.rows` numbers them (steps, hops, lengths of traces).
    Raises ValueError for a level without examples.
    """
    sizes = {level: len(found) for level, found in depths.items()}
    tables = [np.asarray(depths.get(level, ()), dtype=np.int64) for level in curriculum.levels]
    counted: list[dict[int, int]] = [{} for _ in curriculum.stages]
    for first in range(0, curriculum.examples, _BLOCK):
        block = np.arange(first, min(first + _BLOCK, curriculum.examples))
        levels, rows = curriculum.rows(block, sizes)
        stages = curriculum.choices(block).stage
        found = np.array([tables[level][row] for level, row in zip(levels.tolist(), rows.tolist(), strict=True)])
        for at in np.unique(stages).tolist():
            values, counts = np.unique(found[stages == at], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                counted[at][value] = counted[at].get(value, 0) + count
    return [dict(sorted(stage.items())) for stage in counted]


def within_reach(pass_rates: Mapping[Key, float], low: float = 0.2, high: float = 0.8) -> list[Key]:
    """The examples that a model solves neither almost never nor almost always, in their order: those with a pass rate of `low`
    to `high`, both included. From the others there is little to learn: all attempts at them end alike.

    Raises ValueError for a rate that is not within 0 and 1, and for bounds that are not in order there.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"within_reach: bounds {low} and {high} are not in order within 0 and 1")
    for key, rate in pass_rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"within_reach: the pass rate of {str(key)[:60]!r} is {rate}, not within 0 and 1")
    return [key for key, rate in pass_rates.items() if low <= rate <= high]


def levels_by(measured: Mapping[Key, float], bounds: Sequence[float]) -> list[list[Key]]:
    """Examples in levels by what was measured of each (length of the trace, steps, 1 - pass rate): level k has those above
    bounds[k - 1] and up to bounds[k], the last one those above all. In their order; levels may be empty.

    Raises ValueError for bounds that do not grow and for what is no number.
    """
    if list(bounds) != sorted(set(bounds)):
        raise ValueError(f"levels_by: bounds {list(bounds)} do not grow")
    levels: list[list[Key]] = [[] for _ in range(len(bounds) + 1)]
    for key, value in measured.items():
        if math.isnan(value):
            raise ValueError(f"levels_by: what was measured of {str(key)[:60]!r} is no number")
        levels[bisect_left(bounds, value)].append(key)
    return levels


def _before(levels: Sequence[np.ndarray], stage: int) -> set[int]:
    return {level for earlier in levels[:stage] for level in earlier.tolist()}
