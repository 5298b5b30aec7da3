"""A run as a report sees it: whatever its directory holds, finished or not, with what could not be read counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tinycore
from apps.common import files, recipes, strict_yaml
from apps.common.data_config import TextData
from apps.common.errors import RunError
from apps.common.recipe import Recipe

DATA = "data.json"  # the data's manifest, copied into the run so that it outlives the cache


@dataclass(frozen=True)
class RunRecord:
    """Recipe, status, logs and samples of the run at `path`. `damaged` counts log lines that are not whole records."""

    path: Path
    recipe: Recipe
    status: dict[str, Any]
    metrics: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    damaged: int
    samples: str
    data: dict[str, Any] | None
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def parameters(self) -> int:
        return tinycore.count(self.recipe.model).parameters

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """(tokens, values) of the metrics lines that have a number under `name`."""
        rows = [row for row in self.metrics if _is_number(row.get(name)) and _is_number(row.get("tokens"))]
        return [row["tokens"] for row in rows], [row[name] for row in rows]

    def last(self, name: str) -> float | None:
        """The latest value of `name` in the metrics."""
        values = self.series(name)[1]
        return values[-1] if values else None

    def speed(self) -> dict[str, float]:
        """Mean of each number in timing.jsonl over its lines, but the largest memory and the last clock."""
        found: dict[str, float] = {}
        for name in ("tokens_per_second", "mfu", "loader_wait"):
            values = [row[name] for row in self.timing if _is_number(row.get(name))]
            if values:
                found[name] = sum(values) / len(values)
        for name in ("memory_bytes", "seconds"):
            found[name] = max((row[name] for row in self.timing if _is_number(row.get(name))), default=0.0)
        return found

    def last_samples(self) -> str:
        """The latest section of samples.md, without its heading's level."""
        sections = self.samples.split("## Step ")
        return sections[-1] if len(sections) > 1 else ""


def read(path: Path) -> RunRecord:
    """The run at `path`. Raises RunError or BadRequest, one line, for a directory that is no run."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run; a run directory looks like runs/NAME")
    if not (path / "recipe.yaml").is_file():
        raise RunError(f"{path}: no recipe.yaml, so this is not a run directory")
    recipe = recipes.from_dict(strict_yaml.read(path / "recipe.yaml"))
    status = files.read_json(path / "status.json") if (path / "status.json").is_file() else {}
    metrics, damaged = _lines(path / "metrics.jsonl")
    timing, damaged_timing = _lines(path / "timing.jsonl")
    samples = path / "samples.md"
    progress = _newest_progress(path)
    return RunRecord(
        path=path,
        recipe=recipe,
        status=status,
        metrics=metrics,
        timing=timing,
        damaged=damaged + damaged_timing,
        samples=samples.read_text(encoding="utf-8", errors="replace") if samples.is_file() else "",
        data=_data(path, recipe, progress),
        environment=progress.get("environment", {}),
    )


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that `path`, a checkpoint or a run, stands for: a run's best, or else its latest.

    Raises RunError, one line, where there is none.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such directory; give a run (runs/NAME) or a checkpoint of one")
    if (path / "manifest.json").is_file():
        return path
    for pointer in ("best", "latest"):
        if (path / pointer).is_file():
            name = (path / pointer).read_text(encoding="utf-8", errors="replace").strip()
            if Path(name).name == name and (path / "checkpoints" / name).is_dir():
                return path / "checkpoints" / name
    if (path / "recipe.yaml").is_file():
        raise RunError(f"{path}: this run has no checkpoint yet")
    raise RunError(f"{path}: neither a run nor a checkpoint (there is no manifest.json)")


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a log, and how many lines are none (a kill leaves the last one incomplete)."""
    if not path.is_file():
        return [], 0
    records: list[dict[str, Any]] = []
    damaged = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
        else:
            damaged += 1
    return records, damaged


def _newest_progress(path: Path) -> dict[str, Any]:
    """trainer.json of the newest checkpoint whose own can be read: where the run stands, and on what; {} for none."""
    found = _readable(sorted(path.glob("checkpoints/step_*/trainer.json"), reverse=True))
    return next(found, {})


def _data(path: Path, recipe: Recipe, progress: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the run's data: its own copy, or the one in the cache with the splits that the run names."""
    if (path / DATA).is_file():
        return files.read_json(path / DATA)
    if not isinstance(recipe.data, TextData):
        return None
    wanted = progress.get("dataset")
    for manifest in _readable(sorted(Path(recipe.data.cache).glob("*/manifest.json"))):
        splits = manifest.get("splits", {})
        if isinstance(wanted, dict) and wanted == {name: splits.get(name, {}).get("sha256") for name in wanted}:
            return manifest
    return None


def _readable(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        try:
            yield files.read_json(path)
        except RunError:
            continue  # an older checkpoint or another manifest may still say it


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
