"""Training the cells: each in a process of its own, which is `apps/pretrain` itself, some of them at a time.

A process gets a recipe file and a run directory in a folder that goes when it ends; what remains is the cell's file,
written whole. So no cell can know of another, and a kill at any moment costs the cells that were being trained.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import tinycore
from apps.ablate import cell, nursery
from apps.ablate.cell import Cell, Matched, Tuned
from apps.ablate.estimate import Estimate
from apps.common import files, fit, process_memory, recipes, recovery
from apps.common.console import Console, duration, rate
from apps.common.errors import BadRequest, RunError
from apps.common.recipe import Recipe
from apps.common.recovery import NOT_FINITE
from apps.common.signals import StopRequest
from apps.common.variants import Arm
from tinycore import ConfigError
from tinycore.config import dump
from tinycore.config import load as load_strictly

PRETRAIN = Path(__file__).parents[1] / "pretrain" / "__main__.py"
POLL = 0.1


@dataclass(frozen=True)
class Task:
    """A cell that is to be trained: its file goes to `folder`; `data` and `text` are the hashes of its data. `trained`: the
    cell of another folder that is the same run, which then is not made twice."""

    arm: Arm
    seed: int
    recipe: Recipe
    folder: Path
    data: str
    text: str
    tuned: Tuned | None = None
    matched: Matched | None = None
    trained: Cell | None = None

    @property
    def path(self) -> Path:
        return cell.path_of(self.folder, self.arm.name, self.seed)

    @property
    def variant(self) -> str:
        return self.arm.name

    @property
    def steps(self) -> int:
        return self.recipe.train.steps


@dataclass(frozen=True)
class Later:
    """A cell whose recipe waits for other cells: those whose files are `needs`. `make` raises RunError where one failed.
    steps: that it will be trained for; 0 where one of the others is the same run."""

    variant: str
    seed: int
    steps: int
    folder: Path
    needs: frozenset[Path]
    make: Callable[[], Task]

    @property
    def path(self) -> Path:
        return cell.path_of(self.folder, self.variant, self.seed)


Entry = Task | Later


@dataclass(frozen=True)
class Place:
    """Where and how cells are trained: the folder of the experiment, and what each process gets."""

    folder: Path
    jobs: int
    threads: int
    device: str
    precision: str
    hours: float | None = None

    def name_of(self, entry: Entry) -> str:
        """How a cell is called in messages: its file within the folder."""
        return str(entry.path.relative_to(self.folder).with_suffix(""))


@dataclass
class Outcome:
    """How many cells were trained, why others could not be, and what stopped the rest, if something did."""

    trained: int
    failed: dict[str, str]
    stopped: str | None = None


@dataclass
class _Running:
    task: Task
    scratch: Path
    process: BaseProcess
    began: float
    peak: int = 0


def remove_leftovers(folder: Path) -> None:
    """Remove what cells left that were being trained when everything was killed; one may still be busy ending itself."""
    for path in list(folder.rglob(f"{files.TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def train(entries: Sequence[Entry], place: Place, console: Console, estimate: Estimate) -> Outcome:
    """Train `entries` in their order, `place.jobs` at a time; each one's file is there as soon as it is done.

    One that waits for others is passed over until they have ended. A cell that fails is told and left out; the others go on. On
    SIGINT or SIGTERM the running ones are ended, unsaved. Within `place.hours` none is started that would not end in them.
    """
    waiting, running = list(entries), []
    outcome = Outcome(0, {})
    queue = _Queue(waiting, running, place, outcome, console, estimate)
    with StopRequest() as stop:
        try:
            while (waiting or running) and not stop.pending():
                while outcome.stopped is None and len(running) < place.jobs and queue.start_one():
                    pass
                if outcome.stopped is not None and not running:
                    break
                for each in running:
                    each.peak = max(each.peak, process_memory.peak_bytes_of(each.process.pid or 0))
                for each in [each for each in running if each.process.exitcode is not None]:
                    running.remove(each)
                    seconds = time.monotonic() - each.began
                    estimate.observe(each.task.variant, each.task.steps, seconds)
                    told = _collect(each, place, seconds, outcome)
                    done = outcome.trained + len(outcome.failed)
                    number = f"[{done:>{len(str(len(entries)))}}/{len(entries)}]"
                    console.say(f"{number} {place.name_of(each.task)}: {told}; {duration(queue.left())} left")
                time.sleep(POLL)
        finally:
            for each in running:
                _end(each)
        if outcome.stopped is None:
            outcome.stopped = stop.received if waiting or running else None
    return outcome


@dataclass
class _Queue:
    """What waits and runs, and what may be started next."""

    waiting: list[Entry]
    running: list[_Running]
    place: Place
    outcome: Outcome
    console: Console
    estimate: Estimate
    began: float = field(default_factory=time.monotonic)

    def start_one(self) -> bool:
        """Start the first cell that can be; whether there was one. Says in the outcome where the time is too short for it."""
        pending = {entry.path for entry in self.waiting} | {each.task.path for each in self.running}
        ready = (each for each in self.waiting if isinstance(each, Task) or not each.needs & pending)
        entry = next(ready, None)
        if entry is None:
            return False
        if self.place.hours is not None:
            left = 3600 * self.place.hours - (time.monotonic() - self.began)
            if left <= (self.estimate.seconds(entry.variant, entry.steps) or 0.0):
                self.outcome.stopped = f"--hours {self.place.hours:g}"
                return False
        self.waiting.remove(entry)
        try:
            task = entry if isinstance(entry, Task) else entry.make()
        except (RunError, BadRequest) as error:
            self.outcome.failed[self.place.name_of(entry)] = str(error)
            self.console.say(f"{self.place.name_of(entry)}: failed: {error}")
            return True
        if task.trained is not None:
            told = replace(task.trained, overrides=task.arm.overrides, tuned=task.tuned, matched=task.matched)
            cell.write(task.folder, told)
            self.outcome.trained += 1
        else:
            self.running.append(_start(task, self.place))
        return True

    def left(self) -> float:
        """Seconds until everything is done."""
        there = [*self.waiting, *(each.task for each in self.running)]
        return sum(self.estimate.seconds(each.variant, each.steps) or 0.0 for each in there) / self.place.jobs


def _start(task: Task, place: Place) -> _Running:
    scratch = Path(tempfile.mkdtemp(prefix=f"{files.TEMPORARY}{task.path.stem}-", dir=place.folder))
    (scratch / "recipe.yaml").write_text(recipes.to_yaml(task.recipe), encoding="utf-8")
    arguments = [
        "--recipe",
        str(scratch / "recipe.yaml"),
        "--out",
        str(scratch / "run"),
        "--json",
        "--device",
        place.device,
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(place.threads),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # stop when this process is killed (apps/common/signals.py)
    }
    process = nursery.start(PRETRAIN, arguments, environment, scratch / "out", scratch / "err")
    return _Running(task, scratch, process, time.monotonic())


def _end(running: _Running) -> None:
    if running.process.exitcode is None:
        running.process.kill()
        running.process.join()
    shutil.rmtree(running.scratch, ignore_errors=True)


def _collect(running: _Running, place: Place, seconds: float, outcome: Outcome) -> str:
    """Keep what a process that has ended found, and say it."""
    try:
        found = _found(running, place, seconds)
        running.task.folder.mkdir(parents=True, exist_ok=True)
        cell.write(running.task.folder, found)
    except RunError as error:
        outcome.failed[place.name_of(running.task)] = str(error)
        return f"failed: {error}"
    finally:
        _end(running)
    outcome.trained += 1
    if found.val_bpb is None or found.tokens_per_second is None:
        return f"diverged: {found.reason}"
    return f"val_bpb {found.val_bpb:.4f}  {rate(found.tokens_per_second)}  {duration(seconds)}"


def _found(running: _Running, place: Place, seconds: float) -> Cell:
    """The cell of a process that has ended. Raises RunError with the reason why there is none."""
    task, code = running.task, running.process.exitcode
    model = tinycore.count(task.recipe.model)
    said: dict[str, Any] = {"tokens": None, "val_bpb": None, "tokens_per_second": None}
    environment: dict[str, Any] = {}
    reason = None
    assert code is not None
    if code == 0:
        told = _last_line(running.scratch / "out")
        try:
            said = {key: json.loads(told)[key] for key in said}
        except (ValueError, KeyError, TypeError):
            raise RunError(f"its last line is no result: {told[:80]!r}") from None
        with contextlib.suppress(RunError):  # what is in it is worth having, but no part of the result
            status = files.read_json(running.scratch / "run" / "status.json")
            environment = status.get("environment", {})
            failed = [event["failed"] for event in status.get("lineage", []) if event.get("event") == recovery.EVENT]
            if failed:  # it ended at half its rate, which is another variant
                reason, said = f"{NOT_FINITE} at step {failed[0]}", dict.fromkeys(said)
    else:
        last = _last_line(running.scratch / "err")
        reason = last.removeprefix("error: ")
        if code < 0:
            raise RunError(f"its process was killed ({signal.Signals(-code).name})")
        if not reason.startswith(NOT_FINITE):
            raise RunError(reason if last != reason else f"its process ended with status {code}: {last[:200]}")
        reason = reason.partition(";")[0]  # what follows is where its checkpoints are, which go
    try:
        return load_strictly(
            Cell,
            {
                "variant": task.arm.name,
                "seed": task.seed,
                "status": "diverged" if reason else "done",
                "reason": reason,
                "overrides": task.arm.overrides,
                "steps": task.recipe.train.steps,
                **said,
                "parameters": model.parameters,
                "flops_per_token": model.flops_per_token(task.recipe.data.positions),
                "seconds": seconds,
                "jobs": place.jobs,
                "data": task.data,
                "environment": environment,
                "recipe": cell.recorded(task.recipe),
                "text": task.text,
                "memory_bytes": _memory(running, place),
                "predicted_bytes": _predicted(task, place),
                "tuned": None if task.tuned is None else dump(task.tuned),
                "matched": None if task.matched is None else dump(task.matched),
            },
        )
    except ConfigError as error:
        raise RunError(f"its result is none: {error}") from None


def _memory(running: _Running, place: Place) -> int | None:
    """The most memory the process held: on a CPU as the system counted it, on a GPU as the run's log says."""
    if place.device == "cpu" and running.peak:
        return running.peak
    try:
        return int(json.loads(_last_line(running.scratch / "run" / "timing.jsonl"))["memory_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _predicted(task: Task, place: Place) -> int:
    """The memory that a process of this task was to need; what one holds before its model is measured the first time."""
    where = fit.place(place.device, place.precision)
    return fit.predict(task.recipe, where, task.recipe.micro_batch())["total"]


def _last_line(path: Path) -> str:
    """The last line of what a process printed, of at most 64 KiB."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 65536))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
