"""Copies a run to another disk while it trains, for machines that may vanish: `train.mirror FOLDER`.

One thread of the main process copies, one checkpoint at a time, after the checkpoint is complete and verified; training
only notes what is to be copied and keeps the checkpoints that are being read. A newer checkpoint replaces one that
still waits. A copy that fails costs a warning, once for each reason, and is tried again with the next checkpoint: no
state of the other disk stops training or breaks it. What lies there, and in which order: see mirror_directory.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apps.common import mirror_directory
from apps.common.checkpoints import Progress
from apps.common.console import Console
from apps.common.data_config import CatalogSource, EmbeddedSource, FilesSource, HubSource, TextData, TokenizerFile
from apps.common.mirror_directory import MirrorDirectory, Snapshot
from apps.common.puzzle_config import ArcData
from apps.common.recipe import Recipe
from apps.common.run_directory import RunDirectory

STALLED = 600.0  # seconds without a sign of life after which the end of a run no longer waits for its copy
FAREWELL = 30.0  # seconds that a run that failed waits at most
SAY_EVERY = 15.0  # seconds between lines while waiting
POLL = 0.2


class Mirror:
    """Keeps `directory` up with its run; every method is called by the main thread of the main process."""

    def __init__(self, directory: MirrorDirectory, console: Console) -> None:
        self.directory, self.console = directory, console
        self._changed = threading.Condition()
        self._waiting: Snapshot | None = None
        self._current: Snapshot | None = None
        self._offered: Snapshot | None = None
        self._copied: Snapshot | None = None
        self._warned: set[object] = set()
        self._failing = False
        self._finished = False
        self._closed = False
        # a daemon: a drive that never answers must not keep the process
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The run directory that is the copy."""
        return self.directory.path

    def offer(self, progress: Progress, report: bool = False) -> set[str]:
        """Copy the checkpoint of `progress`, just completed, when the one before it is done; does not wait.

        Returns the names of the checkpoints that are being read or will be: the run must not remove them.
        """
        snapshot = Snapshot.take(self.directory.run, progress, report)
        with self._changed:
            skipped, self._waiting, self._offered = self._waiting, snapshot, snapshot
            self._changed.notify_all()
            reading = snapshot.names | (self._current.names if self._current else set())
        if skipped is not None and skipped.checkpoint != snapshot.checkpoint:
            self._warn(
                "slow",
                f"copying to {self.path} takes longer than the steps between checkpoints: {skipped.checkpoint} is "
                f"left out for {snapshot.checkpoint}",
            )
        return reading

    def reading(self) -> set[str]:
        """The names of the checkpoints that are being read."""
        with self._changed:
            return set().union(*(snapshot.names for snapshot in (self._current, self._waiting) if snapshot))

    def finish(self, progress: Progress, asked: Callable[[], bool]) -> bool:
        """Copy what the run ended with, its report and status too, wait for that and say whether all of it arrived.

        Waiting ends early when `asked` turns true, or when nothing has moved for STALLED seconds.
        """
        self.offer(progress, report=True)
        self._wait(STALLED, float("inf"), asked)
        self._finished = True
        return self._say_whether_complete()

    def close(self) -> None:
        """Let others write the mirror; of a run that did not finish, after what is being copied or FAREWELL seconds."""
        if self._closed:
            return
        if not self._finished:
            self._wait(STALLED, FAREWELL, lambda: False)
            self._say_whether_complete()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(POLL)
        with contextlib.suppress(OSError):  # a drive that is gone has no claim to give up
            self.directory.release()

    def _say_whether_complete(self) -> bool:
        with self._changed:
            offered, copied = self._offered, self._copied
        if offered is None:
            return False
        if copied is offered:
            self.console.say(f"mirror: {self.path} is complete ({offered.checkpoint})")
            return True
        held = f"its newest checkpoint is {copied.checkpoint}" if copied else "it has got no checkpoint of this session"
        run = self.directory.run.path
        self.console.warn(f"mirror: {self.path} is not complete, {held}; {run} is: copy it by hand")
        return False

    def _wait(self, stalled: float, longest: float, asked: Callable[[], bool]) -> None:
        began = moved = time.monotonic()
        said, activity, before = began, "", asked()
        while self.reading():
            with self._changed:
                self._changed.wait(POLL)
            now = time.monotonic()
            if self.directory.activity != activity:
                moved, activity = now, self.directory.activity
            if now - moved > stalled or now - began > longest or (asked() and not before):
                return
            if now - said > SAY_EVERY:
                self.console.say(f"waiting for the copy in {self.path}: {activity}")
                said = now

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current = None
                self._changed.notify_all()
                while self._waiting is None:
                    if self._closed:
                        return
                    self._changed.wait()
                snapshot, self._current, self._waiting = self._waiting, self._waiting, None
            try:
                self.directory.copy(snapshot)
            except Exception as error:  # whatever it is, training goes on
                self._failing = True
                self._explain(snapshot, error)
            else:
                with self._changed:
                    self._copied = snapshot
                if self._failing:
                    self.console.say(f"{self.path} is up to date again ({snapshot.checkpoint})")
                self._failing = False

    def _explain(self, snapshot: Snapshot, error: Exception) -> None:
        try:
            self.directory.require_there()
        except Exception as gone:  # then that is the reason, whatever noticed it first
            error = gone
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        number = cause.errno if isinstance(cause, OSError) else None
        reason = os.strerror(number).lower() if number else " ".join(str(error).split()) or type(error).__name__
        self._warn(
            (type(cause), number),
            f"{snapshot.checkpoint} could not be copied to {self.path} ({reason}); "
            "training goes on, the next checkpoint is tried again",
        )

    def _warn(self, kind: object, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self.console.warn(text)


def begin(
    run: RunDirectory, recipe: Recipe, step: int, lineage: list[dict[str, Any]], console: Console
) -> Mirror | None:
    """The mirror that `recipe` asks for, if it does, of a run that goes on from `step`. Raises RunError, one line."""
    if recipe.train.mirror is None:
        return None
    directory = mirror_directory.claim(Path(recipe.train.mirror), run, recipe, step, lineage)
    needs = needed_elsewhere(recipe)
    console.say(
        f"mirror: {directory.path}; going on from it on another machine takes "
        + (f"also {', '.join(needs)}" if needs else "nothing else")
    )
    return Mirror(directory, console)


def needed_elsewhere(recipe: Recipe) -> list[str]:
    """What a run directory lacks for going on with it on another machine, where the data is made again."""
    if isinstance(recipe.data, ArcData):
        return [f"{path} (data)" for path in (recipe.data.path, recipe.data.solutions) if path]
    if not isinstance(recipe.data, TextData):
        return []
    needs = []
    for index, source in enumerate(recipe.data.sources):
        if isinstance(source, FilesSource):
            needs.append(f"{source.path} (data.sources.{index}.path)")
        elif isinstance(source, HubSource | CatalogSource):
            needs.append(f"the dataset {source.name}")
        elif isinstance(source, EmbeddedSource) and {"code", "prose"} & set(source.parts):
            needs.append(f"Python {platform.python_version()}, whose files are in the corpus")
    if isinstance(recipe.data.tokenizer, TokenizerFile):
        needs.append(f"{recipe.data.tokenizer.path} (data.tokenizer.path)")
    return needs
