"""Which cells an experiment has, and which of them wait for others: from a table and a command line to a queue.

For each variant: the short cells that tune its learning rate, or measure its speed where it is matched by time, then its cells,
seed by seed, so that a table of all variants is there early. What a cell waits for is files of other cells, in the folders
`tune` and `calibrate` beside it, which stay: a resumed experiment goes on with the rates and speeds that it began with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.ablate import cell, matching, tuning
from apps.ablate.cell import Cell, Matched, Tuned
from apps.ablate.schedule import Entry, Later, Task
from apps.common import compare
from apps.common.console import Console
from apps.common.data import Prepared, prepare
from apps.common.errors import RunError
from apps.common.variants import PLAIN, Arm, Table

CALIBRATION = "calibrate"
REMEDY = "give another --out, or remove the file to train the cell again"


@dataclass(frozen=True)
class Plan:
    """An experiment in `out`: its variants as they are trained but for tuning and time, each with its data."""

    out: Path
    table: Table
    arms: dict[str, Arm]
    prepared: dict[str, Prepared]
    precision: str

    @property
    def plain(self) -> Arm:
        return self.arms[PLAIN]

    def entries(self, seeds: Sequence[int]) -> Iterator[Entry]:
        """Every cell, those that others wait for before them."""
        tuned = set()
        for seed in seeds:
            for arm in self.arms.values():
                short = [*self._calibrating(arm, seeds[0]), *self._tuning(arm)]
                if arm.name not in tuned:
                    tuned.add(arm.name)
                    yield from short
                if arm.match == "wall_clock" and arm is not self.plain:
                    short += self._calibrating(self.plain, seeds[0], always=True)
                if short:
                    needs = frozenset(task.path for task in short)
                    steps = 0 if self._tried_whole(arm, seed) else arm.recipe.train.steps
                    yield Later(arm.name, seed, steps, self.out, needs, self._maker(arm, seed, seeds[0]))
                else:
                    yield replace(self.task(arm, seed, self.out), matched=self._matched(arm))

    def task(self, arm: Arm, seed: int, folder: Path) -> Task:
        """A cell of `arm` in `folder`, as it is."""
        manifest = self.prepared[arm.name].manifest
        recipe = cell.recipe_of(arm, seed, self.precision)
        return Task(arm, seed, recipe, folder, manifest["sha256"], manifest["text_sha256"])

    def _matched(self, arm: Arm) -> Matched | None:
        return None if arm is self.plain else Matched(by=arm.match)

    def _tuning(self, arm: Arm) -> list[Task]:
        tune = self.table.tune
        if tune is None:
            return []
        return [
            self.task(tuning.short(arm, tune, factor), tune.seed, tuning.folder(self.out, factor))
            for factor in tune.rates
        ]

    def _calibrating(self, arm: Arm, seed: int, always: bool = False) -> list[Task]:
        timed = arm.match == "wall_clock" or (
            arm is self.plain and any(each.match == "wall_clock" for each in self.arms.values())
        )
        if not (timed or always):
            return []
        return [self.task(matching.with_steps(arm, self.table.calibrate), seed, self.out / CALIBRATION)]

    def _maker(self, arm: Arm, seed: int, calibrated: int) -> _Maker:
        return _Maker(self, arm, seed, calibrated)

    def finished(self, arm: Arm, seed: int, calibrated: int) -> Task:
        """The cell of `arm` as it is trained after all. Raises RunError where what it waited for failed."""
        matched = self._matched(arm)
        tuned = None if self.table.tune is None else tuning.chosen(self.out, arm, self.table.tune)
        found = arm
        if arm.match == "wall_clock" and arm is not self.plain:
            rates = [self._rate(each, calibrated) for each in (arm, self.plain)]
            found = matching.timed(arm, self.plain, *rates)
            matched = Matched(by=arm.match, tokens_per_second=rates[0], plain_tokens_per_second=rates[1])
        if tuned is not None:
            found = tuning.with_rate(found, tuned.factor)
        task = self.task(replace(found, name=arm.name), seed, self.out)
        return replace(task, tuned=tuned, matched=matched, trained=self._trained(task, tuned))

    def _tried_whole(self, arm: Arm, seed: int) -> bool:
        """Whether the cells that tune `arm` have this one among them."""
        tune = self.table.tune
        return tune is not None and tune.steps is None and tune.seed == seed and arm.match != "wall_clock"

    def _trained(self, task: Task, tuned: Tuned | None) -> Cell | None:
        """The cell that found the rate, where it is the same run."""
        if tuned is None or task.seed != tuned.seed:
            return None
        found = cell.read(cell.path_of(tuning.folder(self.out, tuned.factor), task.variant, task.seed))
        same = found.data == task.data and not compare.differences(found.recipe, cell.recorded(task.recipe))
        return found if same else None

    def _rate(self, arm: Arm, seed: int) -> float:
        path = cell.path_of(self.out / CALIBRATION, arm.name, seed)
        if not path.exists():
            raise RunError(f"its speed is not known: {path} is missing")
        found = cell.read(path)
        if found.tokens_per_second is None:
            raise RunError(f"its speed is not known: {path} diverged")
        return found.tokens_per_second


@dataclass(frozen=True)
class _Maker:
    """Makes a cell that waited."""

    plan: Plan
    arm: Arm
    seed: int
    calibrated: int

    def __call__(self) -> Task:
        return self.plan.finished(self.arm, self.seed, self.calibrated)


def of(out: Path, table: Table, arms: dict[str, Arm], precision: str, console: Console) -> Plan:
    """The plan of `arms`: their data prepared, their shapes and steps matched. Raises BadRequest for what cannot be."""
    plain = arms[PLAIN]
    shaped = {name: matching.turned(arm, plain) for name, arm in arms.items()}
    made: list[tuple[Arm, Prepared]] = []
    prepared: dict[str, Prepared] = {}
    for name, arm in shaped.items():
        known = (found for each, found in made if each.recipe.data == arm.recipe.data)
        prepared[name] = next(known, None) or prepare(arm.recipe, console)
        made.append((arm, prepared[name]))

    def bytes_a_token(arm: Arm) -> float:
        split = prepared[arm.name].manifest["splits"]["train"]
        return split["bytes"] / split["tokens"]

    ready = {}
    for name, arm in shaped.items():
        found = arm if arm.match == "wall_clock" else matching.paced(arm, plain, bytes_a_token)
        micro_batch = found.recipe.micro_batch()
        if micro_batch != plain.recipe.micro_batch():  # so that the cell says in what it differs from plain
            found = found.changed({"train.micro_batch": micro_batch})
        ready[name] = found
    return Plan(out, table, ready, prepared, precision)


def is_finished(task: Task) -> bool:
    """Whether the cell's file is there. Raises RunError where it is damaged or of another run."""
    if not task.path.exists():
        return False
    found = cell.read(task.path)
    cell.require_same(task.folder, found, cell.recorded(task.recipe), task.data, REMEDY)
    return True
