"""Going back: what a run does once steps come to nothing (a loss or gradient that is not finite) one after another.

Everything becomes what the last good checkpoint saved - weights, optimizer, averages, random state, step, logs - but

    the data goes on behind the rows that led here, which are not read again,
    the learning rate is halved from here on,

and both are an event of the run's lineage, which later checkpoints keep: the rate follows from the lineage alone. Killed
between going back and the next checkpoint, the run resumes from the same checkpoint, meets the same failure and goes back
alike, so that resuming stays exact. A checkpoint is good if it was not saved amid such steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tinycore
from apps.common import checkpoints, files, random_state
from apps.common.checkpoints import Progress
from apps.common.errors import RunError, TrainingFailed
from apps.common.lora import Adapters
from apps.common.processes import World
from apps.common.run_directory import RunDirectory
from tinycore import CheckpointError, Decoder
from tinycore.optim import WeightAverage

NOT_FINITE = "loss or gradient not finite"  # how the message of such a failure begins
EVENT = "rollback"
MOST = 3  # times a run goes back
RATE = 0.5  # of the learning rate, each time


def times(lineage: Sequence[dict[str, Any]]) -> int:
    """How often a run of that lineage went back."""
    return sum(event.get("event") == EVENT for event in lineage)


def rate(lineage: Sequence[dict[str, Any]]) -> float:
    """The learning rate of a run of that lineage, as a share of its schedule's."""
    return RATE ** times(lineage)


def finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every value is."""
    return all(torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).tolist())


def last_good(root: Path) -> Path | None:
    """The newest checkpoint under `root` that verifies and was not saved amid steps that came to nothing."""
    for path in reversed(checkpoints.existing(root)):
        try:
            tinycore.checkpoint.verify(path)
            if not checkpoints.read_progress(path)[0].health.get("in_a_row"):
                return path
        except (CheckpointError, RunError):
            continue
    return None


def go_back(
    run: RunDirectory, step: int, failed: int, before: Sequence[dict[str, Any]], rows: Callable[[int, int], int]
) -> dict[str, Any]:
    """Cut the run, which is at `step`, back to its last good checkpoint: its path, and the event to be added to the lineage
    `before`.

    The main process only. Raises TrainingFailed where there is none or the run went back often enough; `failed` is the first
    of the steps that came to nothing, `rows` how many rows are read from one step to before another.
    """
    path = last_good(run.checkpoints)
    if path is None or times(before) == MOST:
        raise failure(failed, path, times(before))
    for newer in checkpoints.existing(run.checkpoints):
        if newer.name > path.name:
            files.remove_directory(newer)
    saved, _ = checkpoints.read_progress(path)
    checkpoints.stand_on(run, path, saved)
    event = {
        "event": EVENT,
        "step": saved.step,
        "failed": failed,
        "skipped_rows": rows(saved.step, step),
        "learning_rate_factor": RATE ** (times(before) + 1),
    }
    return {"checkpoint": str(path), "event": event}


def failure(step: int, good: Path | None, went_back: int) -> TrainingFailed:
    """The one line that a run ends with."""
    where = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
    tried = f" after going back {went_back} times" if went_back else ""
    return TrainingFailed(
        f"{NOT_FINITE} at step {step}{tried}; {where}. Lower optim.learning_rate or optim.clip, or look at the data of that "
        "step"
    )


def restore(
    path: Path,
    world: World,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    adapters: Adapters | None,
    steps: int,
) -> Progress:
    """Have the tensors and the random state be what this process saved in the checkpoint at `path`; its progress."""
    progress, scalars = checkpoints.read_progress(path)
    if adapters is None:
        model.load_state_dict(tinycore.load(path).state_dict())
    else:
        adapters.load(path)
    model.schedule(max(progress.step - 1, 0) / steps)  # where its last step stood
    checkpoints.load_optimizer(path, scalars, model, optimizer)
    if average is not None and (path / checkpoints.AVERAGE).is_file():
        checkpoints.load_average(path, average)
    content = checkpoints.random_state(path, world.index)
    if content is not None:
        random_state.restore(content, world.device, str(path))
    return progress


def stand_on(now: Progress, saved: Progress, event: dict[str, Any]) -> None:
    """Have `now` be the progress of a run that stands on `saved` again; where the data is and what names the run stay."""
    skipped = now.health["skipped"]
    now.step, now.tokens, now.best, now.latest = saved.step, saved.tokens, saved.best, saved.latest
    now.recent, now.loss_scale = saved.recent, saved.loss_scale
    now.health = {**saved.health, "skipped": skipped}
    now.lineage = [*now.lineage, event]
