"""`--search FILE`: the best values of any dotted keys by successive halving (arXiv 1502.07943).

`trials` settings are drawn from the ranges of the file, by its seed. All are trained for `first` steps; of each rung the best
1 / eta go on to the next, with eta times as many steps, `rungs` rungs in all. A survivor is trained anew, with a schedule for
its new horizon: a run that is cut short in the middle of its schedule says little of one that ends there. A trial is a cell
like any other, a folder a rung, so that a stop costs the cells that were being trained. Trials with other rows or tokens a step
have their steps changed to read the same text. The best setting of the last rung is written as a recipe with the base's steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.ablate import cell, matching, plan
from apps.ablate.cell import Cell
from apps.ablate.schedule import Outcome, Task
from apps.common import recipes, strict_yaml, variants
from apps.common.console import Console
from apps.common.errors import BadRequest, RunError
from apps.common.markdown import table
from apps.common.overrides import Override
from apps.common.variants import PLAIN, Arm, Base, Table, Variant
from tinycore import ConfigError
from tinycore.config import load as load_strictly

BEST = "best.yaml"
MOST_TRIALS = 10_000
DRAWS = 20  # a trial, until its recipe is one
OURS = ("train.steps", "train.seed")  # what halving itself says
Runner = Callable[[Sequence[Task]], Outcome]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where the values of a key are drawn from: between two numbers, by size or by order of magnitude, or one of some;
    `multiple` rounds to multiples of it."""

    linear: tuple[float, float] | None = None
    log: tuple[float, float] | None = None
    choices: tuple[Any, ...] | None = None
    multiple: int | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.linear, self.log, self.choices)) != 1:
            raise ConfigError("linear: give one of linear, log and choices")
        ends = self.linear or self.log
        if ends is not None and not (-math.inf < ends[0] < ends[1] < math.inf and (self.log is None or ends[0] > 0)):
            raise ConfigError(f"{'log' if self.log else 'linear'}: {list(ends)} is not from a number to a larger one")
        if self.choices is not None and (not self.choices or self.multiple is not None):
            raise ConfigError("choices: at least one, and without multiple")
        if self.multiple is not None and self.multiple < 1:
            raise ConfigError(f"multiple: {self.multiple} is not at least 1")

    def draw(self, chance: random.Random) -> Any:
        """One value."""
        if self.choices is not None:
            return self.choices[chance.randrange(len(self.choices))]
        share = chance.random()
        low, high = self.linear or self.log or (0.0, 0.0)
        value = low + share * (high - low) if self.log is None else low * (high / low) ** share
        return float(f"{value:.4g}") if self.multiple is None else max(1, round(value / self.multiple)) * self.multiple


@dataclass(frozen=True, kw_only=True)
class Search:
    """The whole file."""

    train: Base
    space: dict[str, Range]
    trials: int
    first: int
    rungs: int
    eta: int = 3
    seed: int = 0
    description: str = field(default="")

    def __post_init__(self) -> None:
        for key in self.space:
            if key in OURS or not all(key.split(".")):
                raise ConfigError(f"space: {key!r} is not searched; halving says steps and seed")
        if not self.space or self.eta < 2 or self.first < 1 or self.rungs < 1 or self.seed < 0:
            raise ConfigError("space: needs a key, eta of at least 2, and first and rungs of at least 1")
        if not self.eta ** (self.rungs - 1) <= self.trials <= MOST_TRIALS:
            raise ConfigError(
                f"trials: {self.trials} leave none for the last of {self.rungs} rungs; from {self.eta ** (self.rungs - 1)} "
                f"to {MOST_TRIALS:,}"
            )

    def survivors(self, rung: int) -> int:
        """How many are trained on it."""
        return self.trials // self.eta**rung

    def steps(self, rung: int) -> int:
        """Of a trial with the base's rows."""
        return self.first * self.eta**rung


@dataclass(frozen=True)
class Found:
    """The best trial with its cell, and every rung's cells, best first."""

    arm: Arm
    best: Cell
    rungs: tuple[tuple[Cell, ...], ...]


def read(path: Path) -> Search:
    """The search in `path`. Raises BadRequest, one line."""
    try:
        return load_strictly(Search, strict_yaml.read(path), "")
    except ConfigError as error:
        raise BadRequest(f"{path}: {error}") from None


def arms(path: Path, search: Search, changes: Sequence[Override] = ()) -> dict[str, Arm]:
    """The base as `plain`, and the trials by name. Raises BadRequest where the ranges hardly ever make a recipe."""
    base = variants.arms_of(
        Table(train=search.train, variants={PLAIN: Variant(note="")}), str(path), "train", None, changes
    )
    found, chance, reason = dict(base), random.Random(search.seed), ""
    width = len(str(search.trials - 1))
    for _ in range(DRAWS * search.trials):
        if len(found) > search.trials:
            break
        drawn = {key: each.draw(chance) for key, each in search.space.items()}
        try:
            arm = base[PLAIN].changed(drawn)
        except ValueError as error:
            reason = str(error)
            continue
        name = f"t{len(found) - 1:0{width}}"
        # what a trial changes of the budget is told, and then matched
        found[name] = Arm(name, "", drawn, arm.recipe)
    if len(found) <= search.trials:
        raise BadRequest(f"{path}: space: of {DRAWS * search.trials} draws {len(found) - 1} make a recipe; {reason}")
    return found


def run(search: Search, planned: plan.Plan, console: Console, runner: Runner) -> Found | Outcome:
    """Halve until one is left; the outcome where the cells of a rung are not all there."""
    going = [name for name in planned.arms if name != PLAIN]
    base_steps = planned.plain.recipe.train.steps
    rungs: list[tuple[Cell, ...]] = []
    for rung in range(search.rungs):
        going = going[: search.survivors(rung)]
        tasks = [_task(search, planned, planned.arms[name], rung, base_steps) for name in going]
        missing = [task for task in tasks if not plan.is_finished(task)]
        console.say(f"rung {rung + 1} of {search.rungs}: {len(tasks)} trials of {search.steps(rung):,} steps")
        outcome = runner(missing)
        if outcome.stopped or outcome.failed:
            return outcome
        cells = sorted((cell.read(task.path) for task in tasks), key=_order)
        rungs.append(tuple(cells))
        going = [each.variant for each in cells]
    best = rungs[-1][0]
    if best.val_bpb is None:
        raise RunError("every trial of the last rung diverged; give lower learning rates")
    return Found(planned.arms[best.variant], best, tuple(rungs))


def _order(each: Cell) -> tuple[bool, float, str]:
    return each.val_bpb is None, each.val_bpb or 0.0, each.variant


def _task(search: Search, planned: plan.Plan, arm: Arm, rung: int, base_steps: int) -> Task:
    # a trial of other rows has its share of the base's steps on every rung
    steps = max(1, round(search.steps(rung) * arm.recipe.train.steps / base_steps))
    return planned.task(matching.with_steps(arm, steps), search.seed, planned.out / f"rung{rung}")


def write(found: Found, base: Arm, out: Path, drawn: dict[str, Any]) -> Path:
    """The best setting as a recipe, with the steps of the base."""
    from apps.common import files

    recipe = base.changed(drawn).recipe
    path = out / BEST
    files.write_text(path, recipes.to_yaml(recipe))
    return path


def markdown(search: Search, found: Found) -> str:
    """Every trial: what was drawn, and how it did on the rungs that it reached; the best first."""
    scores: dict[str, list[str]] = {}
    for cells in found.rungs:
        for each in cells:
            scores.setdefault(each.variant, []).append("diverged" if each.val_bpb is None else f"{each.val_bpb:.4f}")
    reached: list[Cell] = []
    for cells in reversed(found.rungs):
        reached += [each for each in cells if each.variant not in {other.variant for other in reached}]
    head = ["trial", *search.space, *(f"{search.steps(rung):,} steps" for rung in range(search.rungs))]
    rows = []
    for each in reached:
        there = scores[each.variant]
        drawn = [str(each.overrides.get(key)) for key in search.space]
        rows.append([each.variant, *drawn, *there, *[""] * (search.rungs - len(there))])
    return table(head, rows)
