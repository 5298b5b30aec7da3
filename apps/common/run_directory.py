"""A run's directory: made once, never overwritten, continued only by who holds its lock.

    runs/<name>/recipe.yaml      every resolved value
                status.json      running | done | stopped | failed, step, lineage, run_id
                metrics.jsonl    what the recipe determines        timing.jsonl   clocks, speed, memory
                checkpoints/     step_00001000/ ...                best, latest   one line: a checkpoint's name
                samples.md  report.md  *.png

`best` and `latest` are text files: symbolic links break on Windows and when a run is copied.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from apps.common import files, recipes
from apps.common.errors import RunError
from apps.common.logs import Log
from apps.common.recipe import Recipe

RESUME = "uv run apps/pretrain --resume {}"
Status = Literal["running", "done", "stopped", "failed"]


class RunDirectory:
    """The files of one run, while this process has its lock. `run_id` is the run's own, wherever it is copied to."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path, self.run_id = path, run_id
        self.metrics = Log(path / "metrics.jsonl")
        self.timing = Log(path / "timing.jsonl")
        self.checkpoints = path / "checkpoints"
        self.facts: dict[str, Any] = {}
        self._lock = files.Lock(path)
        files.remove_leftovers(path)

    def write_recipe(self, recipe: Recipe) -> None:
        """recipe.yaml: the recipe with nothing left to be derived."""
        files.write_text(self.path / "recipe.yaml", recipes.to_yaml(recipe))

    def write_status(self, status: Status, step: int, lineage: list[dict[str, Any]], **more: Any) -> None:
        """status.json; `more` are facts worth finding without reading a log, such as the number of parameters. They
        stay in every later status of this session."""
        self.facts |= more
        files.write_json(self.path / "status.json", {**_status(status, step, lineage, self.run_id), **self.facts})

    def point(self, name: Literal["best", "latest"], checkpoint: Path) -> None:
        """Have `best` or `latest` name a checkpoint of this run."""
        files.write_text(self.path / name, checkpoint.name + "\n")

    def append_samples(self, text: str) -> None:
        """Add to samples.md."""
        path = self.path / "samples.md"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        files.write_text(path, before + text)

    def cut(self, step: int) -> None:
        """Make every log what it was at `step`."""
        self.metrics.cut(step)
        self.timing.cut(step)
        samples = self.path / "samples.md"
        if samples.exists():
            files.write_text(samples, _samples_until(samples.read_text(encoding="utf-8"), step))

    def flush(self) -> None:
        """Have the device hold the logs, so that no checkpoint is ahead of them."""
        self.metrics.flush()
        self.timing.flush()

    def release(self) -> None:
        """Let another process write here."""
        self._lock.release()

    def discard(self) -> None:
        """Remove a run that was just made and is not to begin."""
        self.release()
        files.remove_directory(self.path)


def sample_heading(step: int) -> str:
    """The heading that begins the samples of a step."""
    return f"## Step {step}\n"


def _samples_until(text: str, step: int) -> str:
    kept = []
    for line in text.splitlines(keepends=True):
        word = line.removeprefix("## Step ").strip()
        if line.startswith("## Step ") and word.isdigit() and int(word) > step:
            break
        kept.append(line)
    return "".join(kept)


def create(requested: Path, recipe: Recipe, lineage: list[dict[str, Any]]) -> RunDirectory:
    """A new run directory at `requested`, or at `requested`-2, -3, ... beside finished runs.

    It appears with its recipe and status in it: whatever is killed when, a directory there is can be resumed.
    Raises RunError as `vacant` does.
    """
    path, run_id = vacant(requested), secrets.token_hex(8)
    with _said_if_impossible(path):
        make(path, recipe, lineage, run_id)
    return RunDirectory(path, run_id)


def make(path: Path, recipe: Recipe, lineage: list[dict[str, Any]], run_id: str) -> None:
    """Have a run that has not begun appear at `path`, which must not be occupied. Raises OSError, RunError."""
    with _appearing(path) as directory:
        files.write_text(directory / "recipe.yaml", recipes.to_yaml(recipe))
        files.write_json(directory / "status.json", _status("running", 0, lineage, run_id))


@contextlib.contextmanager
def new(path: Path) -> Generator[Path]:
    """A run directory to be filled, which appears at `path` (a `vacant` one) whole or not at all. Raises RunError."""
    with _said_if_impossible(path), _appearing(path) as directory:
        yield directory


@contextlib.contextmanager
def _appearing(path: Path) -> Generator[Path]:
    if path.exists():
        path.rmdir()  # empty
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.new_directory(path) as directory:
        yield directory


@contextlib.contextmanager
def _said_if_impossible(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be made ({error.strerror}); choose another directory with --out") from None


def vacant(requested: Path) -> Path:
    """Where a new run may stand: `requested`, or `requested`-2, -3, ... beside finished runs.

    Raises RunError where an unfinished run (with the command that resumes it) or something that is no run stands.
    """
    path, number = requested, 1
    while occupied(path):
        if not (path / "status.json").exists():
            raise RunError(f"{path}: exists and is not a run; choose another directory with --out")
        status = read_status(path)
        if status["status"] != "done":
            raise RunError(
                f"{path}: holds an unfinished run ({status['status']}, step {status['step']}); "
                f"continue it with `{RESUME.format(path)}`, or choose another directory with --out"
            )
        number += 1
        path = requested.with_name(f"{requested.name}-{number}")
    return path


def reopen(path: Path) -> tuple[RunDirectory, dict[str, Any]]:
    """An existing run to be continued, and its status. Raises RunError where there is none or it is being written."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run; see what there is under {path.parent}")
    if not (path / "status.json").exists():
        run = next((parent for parent in path.parents if (parent / "status.json").exists()), None)
        hint = f"resume {run}" if run else "give the directory that holds its status.json"
        raise RunError(f"{path}: not a run directory; {hint}")
    status = read_status(path)
    run_id = status.get("run_id")
    return RunDirectory(path, run_id if isinstance(run_id, str) else secrets.token_hex(8)), status


def read_status(path: Path) -> dict[str, Any]:
    """status.json of the run at `path`, checked for the fields that others rely on."""
    status = files.read_json(path / "status.json")
    if status.get("status") not in ("running", "done", "stopped", "failed") or not isinstance(status.get("step"), int):
        raise RunError(f"{path / 'status.json'}: names no status and step; the file was not written by a run")
    return status


def _status(status: Status, step: int, lineage: list[dict[str, Any]], run_id: str) -> dict[str, Any]:
    return {"status": status, "step": step, "lineage": lineage, "run_id": run_id}


def occupied(path: Path) -> bool:
    """Whether a new run cannot have `path`: anything but an empty directory is there."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))
