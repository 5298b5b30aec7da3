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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tinycore
from apps.ablate import cell
from apps.ablate.cell import Cell
from apps.common import files, recipes, recovery
from apps.common.console import Console, duration, rate
from apps.common.errors import RunError
from apps.common.recipe import Recipe
from apps.common.recovery import NOT_FINITE
from apps.common.signals import StopRequest
from apps.common.variants import Arm
from tinycore import ConfigError
from tinycore.config import load as load_strictly

PRETRAIN = (sys.executable, "-m", "apps.pretrain")
POLL = 0.1


@dataclass(frozen=True)
class Task:
    """A cell that is to be trained."""

    arm: Arm
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        return cell.name_of(self.arm.name, self.seed)


@dataclass(frozen=True)
class Place:
    """Where and how cells are trained: the folder of their files, the hash of their data, and what each process gets."""

    folder: Path
    data: str
    jobs: int
    threads: int
    device: str


@dataclass
class Outcome:
    """How many cells were trained, why others could not be, and whether someone asked to stop."""

    trained: int
    failed: dict[str, str]
    stopped: str | None = None


@dataclass(frozen=True)
class _Running:
    task: Task
    scratch: Path
    process: subprocess.Popen[bytes]
    began: float


def remove_leftovers(folder: Path) -> None:
    """Remove what cells left that were being trained when everything was killed; one may still be busy ending itself."""
    for path in folder.glob(f"{files.TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def train(tasks: Sequence[Task], place: Place, console: Console) -> Outcome:
    """Train `tasks` in their order, `place.jobs` at a time; each one's file is there as soon as it is done.

    A cell that fails is told and left out; the others go on. On SIGINT or SIGTERM the running ones are ended, unsaved.
    """
    waiting, running, seconds = list(tasks), [], []
    outcome = Outcome(0, {})
    with StopRequest() as stop:
        try:
            while (waiting or running) and not stop.pending():
                while waiting and len(running) < place.jobs:
                    running.append(_start(waiting.pop(0), place))
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    seconds.append(time.monotonic() - each.began)
                    told = _collect(each, place, seconds[-1], outcome)
                    left = (len(waiting) + len(running)) * sum(seconds) / len(seconds) / place.jobs
                    done = outcome.trained + len(outcome.failed)
                    number = f"[{done:>{len(str(len(tasks)))}}/{len(tasks)}]"
                    console.say(f"{number} {each.task.name}: {told}; {duration(left)} left")
                time.sleep(POLL)
        finally:
            for each in running:
                _end(each)
        outcome.stopped = stop.received if waiting or running else None
    return outcome


def _start(task: Task, place: Place) -> _Running:
    scratch = Path(tempfile.mkdtemp(prefix=f"{files.TEMPORARY}{task.name}-", dir=place.folder))
    (scratch / "recipe.yaml").write_text(recipes.to_yaml(task.recipe), encoding="utf-8")
    command = [*PRETRAIN, "--recipe", str(scratch / "recipe.yaml"), "--out", str(scratch / "run"), "--json"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(place.threads),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # stop when this process is killed (apps/common/signals.py)
    }
    with open(scratch / "out", "wb") as out, open(scratch / "err", "wb") as err:
        process = subprocess.Popen(
            [*command, "--device", place.device],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # a Ctrl-C at the terminal is for this process to pass on
        )
    return _Running(task, scratch, process, time.monotonic())


def _end(running: _Running) -> None:
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    shutil.rmtree(running.scratch, ignore_errors=True)


def _collect(running: _Running, place: Place, seconds: float, outcome: Outcome) -> str:
    """Keep what a process that has ended found, and say it."""
    try:
        found = _found(running, place, seconds)
        cell.write(place.folder, found)
    except RunError as error:
        outcome.failed[running.task.name] = str(error)
        return f"failed: {error}"
    finally:
        _end(running)
    outcome.trained += 1
    if found.val_bpb is None or found.tokens_per_second is None:
        return f"diverged: {found.reason}"
    return f"val_bpb {found.val_bpb:.4f}  {rate(found.tokens_per_second)}  {duration(seconds)}"


def _found(running: _Running, place: Place, seconds: float) -> Cell:
    """The cell of a process that has ended. Raises RunError with the reason why there is none."""
    task, code = running.task, running.process.returncode
    model = tinycore.count(task.recipe.model)
    said: dict[str, Any] = {"tokens": None, "val_bpb": None, "tokens_per_second": None}
    environment: dict[str, Any] = {}
    reason = None
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
                "data": place.data,
                "environment": environment,
                "recipe": cell.recorded(task.recipe),
            },
        )
    except ConfigError as error:
        raise RunError(f"its result is none: {error}") from None


def _last_line(path: Path) -> str:
    """The last line of what a process printed, of at most 64 KiB."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 65536))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
