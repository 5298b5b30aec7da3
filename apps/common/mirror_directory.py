"""The copy of a run on another disk, which is a run directory in its own right: `--resume` goes on from it as it is.

At every moment, and so wherever a copy is cut off, it holds a verified checkpoint (once it has had one) and logs that
reach at least that checkpoint's step; resuming cuts logs back. Hence the order of a copy:

    logs as they were at the checkpoint, the checkpoint (read back before it gets its name), `latest`,
    the best checkpoint and `best`, recipe, report, status, and only then what is too old goes

Each file and each checkpoint appears under its name whole. Nothing here needs links, permissions or locks of the file
system: FAT sticks and mounted network drives have none. What vanishes is never made again: where a drive is no longer
mounted, that would fill the disk below it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tinycore
from apps.common import checkpoints, files, recipes, run_directory
from apps.common.checkpoints import Progress
from apps.common.errors import RunError
from apps.common.recipe import Recipe
from apps.common.run_directory import RunDirectory
from apps.common.run_record import DATA
from tinycore import CheckpointError

LOGS = ("metrics.jsonl", "timing.jsonl", "samples.md")
REPORT = ("report.md", DATA, "*.png")
CHUNK = 4 * 2**20  # bytes copied at a time


@dataclass(frozen=True)
class Snapshot:
    """What a run held when `checkpoint` was complete; `best` and `checkpoint` are names of checkpoints."""

    checkpoint: str
    best: str | None
    logs: dict[str, bytes]
    status: dict[str, Any]
    report: bool

    @classmethod
    def take(cls, run: RunDirectory, progress: Progress, report: bool) -> Snapshot:
        """Of `run` at the checkpoint of `progress`, which is the last thing that was written; with its report if so."""
        best = checkpoints.directory_of(progress.best["step"]) if progress.best else None
        return cls(
            checkpoint=checkpoints.directory_of(progress.step),
            best=best if best and (run.checkpoints / best).exists() else None,
            logs={name: (run.path / name).read_bytes() for name in LOGS if (run.path / name).exists()},
            status=run_directory.read_status(run.path),
            report=report,
        )

    @property
    def names(self) -> set[str]:
        """The checkpoints that a copy of this reads."""
        return {self.checkpoint, self.best or self.checkpoint}


class MirrorDirectory:
    """The copy of `run`, while this process has its lock; made by `claim`. `activity` says what `copy` is doing."""

    def __init__(self, path: Path, run: RunDirectory, recipe: Recipe) -> None:
        self.path, self.run = path, run
        self.checkpoints = path / "checkpoints"
        self.activity = ""
        self._recipe, self._keep = recipes.to_yaml(recipe), recipe.train.keep
        self._verified: set[str] = set()
        self._lock = files.Lock(path)

    def copy(self, snapshot: Snapshot) -> None:
        """Have the mirror hold `snapshot`. Raises OSError, RunError or CheckpointError; the mirror is good even then."""
        self.require_there()
        self.checkpoints.mkdir(exist_ok=True)
        files.remove_leftovers(self.path)
        files.remove_leftovers(self.checkpoints)
        for name, content in snapshot.logs.items():
            files.write_bytes(self.path / name, content)
        self._bring(snapshot.checkpoint)
        files.write_text(self.path / "latest", snapshot.checkpoint + "\n")
        if snapshot.best is not None:
            self._bring(snapshot.best)
            files.write_text(self.path / "best", snapshot.best + "\n")
        files.write_text(self.path / "recipe.yaml", self._recipe)
        if snapshot.report:
            for file in (file for pattern in REPORT for file in sorted(self.run.path.glob(pattern))):
                files.write_bytes(self.path / file.name, file.read_bytes())
        files.write_json(self.path / "status.json", snapshot.status)
        checkpoints.prune(self.checkpoints, self._keep, snapshot.names)

    def release(self) -> None:
        """Let another process write here."""
        self._lock.release()

    def require_there(self) -> None:
        """Raise FileNotFoundError where the mirror has vanished, RunError where it is another run's."""
        file = self.path / "status.json"
        if not file.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        if run_directory.read_status(self.path).get("run_id") != self.run.run_id:
            raise RunError(f"{self.path}: holds another run now")

    def _bring(self, name: str) -> None:
        """Have the mirror hold the run's checkpoint `name`, verified by this process."""
        source, target = self.run.checkpoints / name, self.checkpoints / name
        if target.exists():
            if name in self._verified or self._is_whole(source, target):
                self._verified.add(name)
                return
            files.remove_directory(target)
        with files.new_directory(target, check=self._read_back) as directory:
            for file in sorted(source.iterdir()):
                self._copy_file(file, directory / file.name)
        self._verified.add(name)

    def _is_whole(self, source: Path, target: Path) -> bool:
        """Whether `target`, of an earlier session, is a good copy of `source`: their manifests hold all hashes."""
        manifests = [path / tinycore.checkpoint.MANIFEST for path in (source, target)]
        if not manifests[1].is_file() or manifests[0].read_bytes() != manifests[1].read_bytes():
            return False
        try:
            self._read_back(target)
        except CheckpointError:
            return False
        return True

    def _copy_file(self, source: Path, target: Path) -> None:
        done, total = 0, source.stat().st_size
        with files.full_disk_explained(target), open(source, "rb") as reading, open(target, "wb") as writing:
            while chunk := reading.read(CHUNK):
                writing.write(chunk)
                done += len(chunk)
                self.activity = f"{source.parent.name}/{source.name}, {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB"

    def _read_back(self, directory: Path) -> None:
        self.activity = f"{directory.name.removeprefix(files.TEMPORARY)} is read back"
        for file in directory.iterdir():
            _forget(file)
        tinycore.checkpoint.verify(directory)


def claim(
    folder: Path, run: RunDirectory, recipe: Recipe, progress_step: int, lineage: list[dict[str, Any]]
) -> MirrorDirectory:
    """The mirror of `run` in `folder`, new or continued. `lineage` and `progress_step` are where the run goes on from.

    Raises RunError, one line, where it cannot be made or written, would lie in the run or the run in it, holds anything
    but an older state of this very run, or is being written.
    """
    path = folder / run.path.resolve().name
    _require_apart(run.path, path)
    # from the copy's own place, the run is one without a mirror
    recipe = replace(recipe, train=replace(recipe.train, mirror=None))
    try:
        if run_directory.occupied(path):
            _require_same_run(path, run, progress_step, lineage)
        else:
            run_directory.make(path, recipe, lineage, run.run_id)
        return MirrorDirectory(path, run, recipe)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"train.mirror: {path} cannot be made or written ({reason}); give another folder") from None


def _require_apart(run: Path, mirror: Path) -> None:
    here, there = run.resolve(), mirror.resolve()
    same = here == there or (there.exists() and there.samefile(here))
    if same or here in there.parents or there in here.parents:
        raise RunError(
            f"train.mirror: the copy would be {there}, which is not apart from the run itself ({here}); "
            "give a folder elsewhere, best on another disk"
        )


def _require_same_run(path: Path, run: RunDirectory, step: int, lineage: list[dict[str, Any]]) -> None:
    """Raise RunError unless `path` is `run` as it once was."""
    if not (path / "status.json").is_file():
        raise RunError(f"train.mirror: {path} exists and is not a run; give another folder")
    if run_directory.read_status(path).get("run_id") != run.run_id:
        raise RunError(
            f"train.mirror: {path} holds another run; give another folder, or this run another name with --out"
        )
    saved = _newest_progress(path / "checkpoints")
    if saved is None:
        return
    again = run_directory.RESUME.format(path)
    if saved.step > step:
        raise RunError(
            f"train.mirror: {path} is at step {saved.step}, this run at {step}; go on from there with `{again}`, "
            "or give another folder"
        )
    if saved.lineage != lineage[: len(saved.lineage)]:
        raise RunError(
            f"train.mirror: {path} was continued apart from this run; go on from there with `{again}`, or give "
            "another folder"
        )


def _newest_progress(root: Path) -> Progress | None:
    """Of the newest checkpoint whose progress can be read; it is verified when it is to be kept."""
    for path in reversed(checkpoints.existing(root)):
        try:
            return checkpoints.read_progress(path)[0]
        except RunError:
            continue
    return None


def _forget(file: Path) -> None:
    """Have the system drop its copy of `file` in memory, so that it is read from the disk again."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
