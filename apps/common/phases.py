"""Which rows a step learns from: batches and rows may grow over the run, as a pure function of the step.

    train.batch_schedule     so many sequences a step at first, by accumulating fewer micro-batches (small batches early cost
                             little quality and give more steps for the same tokens, arXiv 1711.00489)
    train.length_schedule    rows cut into shorter ones at first: the same tokens a step, each seeing fewer before it
                             (arXiv 2108.06084), so that attention costs less

A phase ends at a share of the steps. What the loader yields is always rows of data.sequence_length: its place, and with it
resuming, does not depend on any schedule. A row of L tokens becomes L / l rows of l: targets are what they were, the last one
of a piece included, and a document that goes on in the next piece is seen there without its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

import tinycore
from apps.common.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """Steps `first` to `stop` - 1 (from 0): sequences a step, over all processes, and the tokens they are cut into."""

    first: int
    stop: int
    batch: int
    length: int


def of(recipe: Recipe, steps: int | None = None) -> tuple[Phase, ...]:
    """The phases of a run of `steps`, by default the recipe's, in order; none is empty."""
    train, whole = recipe.train, recipe.train.steps if steps is None else steps
    batches = [(round(entry.until * whole), entry.batch) for entry in train.batch_schedule]
    lengths = [(round(entry.until * whole), entry.length) for entry in train.length_schedule]
    batches.append((whole, train.batch_size))
    lengths.append((whole, recipe.data.positions))
    edges = sorted({0, whole, *(stop for stop, _ in batches), *(stop for stop, _ in lengths)})
    return tuple(
        Phase(first, stop, _holding(batches, first), _holding(lengths, first)) for first, stop in pairwise(edges)
    )


def at(found: tuple[Phase, ...], step: int) -> Phase:
    """The phase of `step`, which counts from 0; past the end, the last one."""
    return next((phase for phase in found if step < phase.stop), found[-1])


def sequences(recipe: Recipe, steps: int | None = None) -> int:
    """Rows of data.sequence_length that a run of `steps` learns from, by default the recipe's."""
    return sum((phase.stop - phase.first) * phase.batch for phase in of(recipe, steps))


def between(recipe: Recipe, first: int, stop: int) -> int:
    """Rows of data.sequence_length that steps `first` to `stop` - 1 of the recipe's run read."""
    spans = ((max(first, phase.first), min(stop, phase.stop), phase.batch) for phase in of(recipe))
    return sum(max(0, last - begin) * batch for begin, last, batch in spans)


def steps_for(recipe: Recipe, rows: float) -> int:
    """The fewest steps, at least one, of a run that learns from at least so many rows: more steps never have fewer."""
    low, high = 0, 1
    while sequences(recipe, high) < rows:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sequences(recipe, middle) < rows else (low, middle)
    return high


def flops(recipe: Recipe) -> float:
    """Matrix-product FLOPs of the whole run: shorter rows have shorter attention."""
    counts, length = tinycore.count(recipe.model), recipe.data.positions
    return sum(
        counts.flops_per_token(phase.length) * (phase.stop - phase.first) * phase.batch * length for phase in of(recipe)
    )


class Windows:
    """The micro-batches of one process's steps, and what they cost."""

    def __init__(self, recipe: Recipe, processes: int) -> None:
        """`recipe.train` has its micro_batch resolved for so many processes."""
        self.phases, self.positions = of(recipe), recipe.data.positions
        self.rows = recipe.micro_batch(processes) * processes  # of one micro-batch in every process
        counts = tinycore.count(recipe.model)
        self._flops = {phase.length: counts.flops_per_token(phase.length) for phase in self.phases}

    @property
    def lengths(self) -> set[int]:
        """Every length that rows have, those of validation included."""
        return {phase.length for phase in self.phases} | {self.positions}

    def accumulation(self, step: int) -> int:
        """Micro-batches of `step`."""
        return at(self.phases, step).batch // self.rows

    def flops_per_token(self, step: int) -> float:
        """Matrix-product FLOPs per token of `step`."""
        return self._flops[at(self.phases, step).length]

    def take(self, batches: Iterator[Any], step: int) -> list[Any]:
        """The micro-batches of `step`, the next of `batches`."""
        found, length = [next(batches) for _ in range(self.accumulation(step))], at(self.phases, step).length
        return found if length == self.positions else [cut(batch, length) for batch in found]


def cut(batch: Any, length: int) -> Any:
    """A batch of text in rows of `length`, which divides its own."""
    rows = {name: getattr(batch, name) for name in ("tokens", "targets", "documents", "labels")}
    pieces: dict[str, np.ndarray | None] = {
        name: None if array is None else array.reshape(-1, length) for name, array in rows.items()
    }
    return replace(batch, **pieces)


def said(recipe: Recipe) -> str:
    """The schedules in words, empty where there are none."""
    train = recipe.train
    batches = [f"{entry.batch} sequences a step up to {entry.until:.0%}" for entry in train.batch_schedule]
    lengths = [f"rows cut into {entry.length} up to {entry.until:.0%}" for entry in train.length_schedule]
    return ", ".join([*batches, *lengths])


def _holding(entries: list[tuple[int, int]], step: int) -> int:
    """The value of the first of (stop, value) that does not end before `step`."""
    return next(value for stop, value in entries if step < stop)
