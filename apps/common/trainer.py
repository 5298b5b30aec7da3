"""The training loop, the only one: every objective and every optimizer goes through `Trainer.run`.

One step is a window of `accumulation` micro-batches on each process. The targets in it are counted in NumPy and summed
over the processes before the first backward pass, so that every target of the window weighs the same:

    loss = sum over micro-batches of (sum / count) * (targets of the micro-batch / targets of the window)

which for next-token cross-entropy is its sum over the window divided by the window's targets. Gradients are summed over
the processes once, before the optimizer step: N processes compute what one computes with N times the accumulation.

An objective is a generator of (losses, step): a backward pass at each yield, an optimizer step when every micro-batch
of the window has reached a yield whose `step` is true. The rows of a window (apps/common/phases.py) are a pure function of
the step, the learning rate one of the step and of how often the run went back. A step ends with, in this order, its log
line, validation, samples and checkpoint: no checkpoint is ahead of its logs.

An optimizer step whose loss or gradient is not finite does not take place, in any process; after some in a row the run goes
back to its last good checkpoint (apps/common/recovery.py). So each step waits for the device once, to look at these two.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import tinycore
from apps.common import (
    checkpoints,
    gradient_norms,
    patience,
    phases,
    profiling,
    random_state,
    recovery,
    sharding,
    speed,
)
from apps.common.checkpoints import Progress
from apps.common.clock import Clock
from apps.common.compiling import compile_layers
from apps.common.console import Console, Steps
from apps.common.health import Health
from apps.common.lora import Adapters
from apps.common.loss_scale import LossScale
from apps.common.mirror import Mirror
from apps.common.optimization import Factors
from apps.common.phases import Windows
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.recovery import NOT_FINITE
from apps.common.run_directory import RunDirectory
from apps.common.signals import StopRequest
from apps.common.tally import Tally
from apps.common.task import Task
from tinycore import Decoder
from tinycore.families import LOSS, Aux, add_aux
from tinycore.optim import DistributedMuon, WeightAverage

RAW = "raw_"  # before the name of a score: of the weights themselves, beside that of their average


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last checkpoint, and its speed while it trained (validation and saving left out)."""

    status: Literal["done", "stopped"]
    progress: Progress
    checkpoint: str
    tokens_per_second: float
    seconds: float


@dataclass(frozen=True)
class Taken:
    """What one step came to. share: this process's of the loss, loss: everybody's, both the mean over the optimizer steps
    of the window; norm: the gradient's last one before clipping. whole: every optimizer step took place; overflowed: one did
    not for the scale of fp16."""

    share: Tensor
    loss: float
    norm: Tensor
    whole: bool
    overflowed: bool


class Trainer:
    """One process's part in training `model`; all processes make one with the same recipe and call `run` together."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        world: World,
        run: RunDirectory | None,
        console: Console,
        model: Decoder,
        optimizer: torch.optim.Optimizer,
        factors: Callable[[int], Factors],
        task: Task,
        progress: Progress,
        elapsed: float = 0.0,
        mirror: Mirror | None = None,
        average: WeightAverage | None = None,
        adapters: Adapters | None = None,
        profile: bool = False,
    ) -> None:
        """`model`, its `average` and its `adapters` lie on the world's device, `recipe.train` has precision, micro_batch and
        recompute resolved; `run` and its `mirror` are given to the main process only. `progress` is where to go on from, after
        `elapsed` seconds. `profile`: record a few steps of this session."""
        self.recipe, self.settings, self.world, self.run_directory = recipe, recipe.train, world, run
        self.mirror, self.adapters, self.profile = mirror, adapters, profile
        self.console, self.model, self.optimizer, self.factors = console, model, optimizer, factors
        self.task, self.loader, self.progress, self.average = task, task.loader, progress, average
        self.windows = Windows(recipe, world.size)
        if progress.data:
            self.loader.load_state_dict(progress.data)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.peaks = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        model.recompute(self.settings.policy)
        self.forward = self._prepared(model)
        # of this step: statistics of the model's forward passes, and the objective's losses where it has several
        self.stats: Aux = {}
        self.tally = Tally(world, progress.recent)
        self.forward.register_forward_hook(self._remember)
        self.rate = 0.0  # of this step, where width changes nothing
        self.norms: dict[str, float] = {}  # of this step's gradient by family and layer, where they are due
        self.health = Health(self.settings.spikes, progress.health)
        self.scale = LossScale(world.precision, progress.loss_scale)
        self.clock = Clock(world, self.windows.flops_per_token(progress.step))
        self.clock.start(progress.tokens, elapsed)
        self.ended: str | None = None  # why the run ends before its steps do

    @property
    def accumulation(self) -> int:
        """Micro-batches of the next step on this process."""
        return self.windows.accumulation(self.progress.step)

    def _prepared(self, model: Decoder) -> nn.Module:
        """The module that training calls: autocast by Accelerate, layers compiled on request, not wrapped for gradients."""
        if self.settings.compile:
            compile_layers(model, self.windows.lengths)
        return self.world.accelerator.prepare_model(model, evaluation_mode=True)

    def _remember(self, module: nn.Module, given: Any, out: tinycore.Output) -> None:
        """Keep the statistics of a forward pass of training: objectives yield losses only."""
        if module.training:
            self._keep(out.stats)

    def _keep(self, found: Aux) -> None:
        add_aux(self.stats, {name: (total.detach(), count.detach()) for name, (total, count) in found.items()})

    def run(self, stop: StopRequest) -> Outcome:
        """Train up to `recipe.train.steps`, or until a process is asked to stop; saved in both cases.

        Raises TrainingFailed when the loss stays not finite or a process is lost, RunError on a full disk.
        """
        saved = ""
        with (
            self.console.progress(self.settings.steps) as shown,
            contextlib.closing(self._batches()) as batches,
            profiling.steps(self.run_directory if self.profile else None, self.world.device, self.console) as recorded,
        ):
            while self.progress.step < self.settings.steps:
                self.progress.data = self.loader.state_dict()
                self.clock.flops_per_token = self.windows.flops_per_token(self.progress.step)
                with self.clock.waiting():
                    window = self.windows.take(batches, self.progress.step)
                counted = sum(batch.target_count for batch in window)
                targets, stops = self.world.total(counted, stop.pending())
                if stops:
                    saved = saved or self._save()
                    return self._outcome("stopped", saved)
                with self.world.contact():
                    taken = self._step(window, int(targets))
                recorded()
                self.progress.step += 1
                self.progress.data = self.loader.state_dict()
                if taken.whole:
                    self._sum_up(taken, int(targets))
                    self.progress.tokens += int(targets)
                else:
                    self._skipped(taken)
                saved = self._after_step(taken.norm, shown)
                if self.ended is not None:
                    self.console.say(f"step {self.progress.step}: {self.ended}; ending here")
                    saved = saved or self._save()
                    break
            if not saved:  # resumed from the last step's checkpoint: nothing was left to do
                saved = checkpoints.directory_of(self.progress.step)
        return self._outcome("done", saved)

    def rehearse(self) -> Generator[float]:
        """Seconds of one step after another, without end, logs or checkpoints: for a model that is thrown away."""
        with contextlib.closing(self._batches()) as batches:
            while True:
                start = time.perf_counter()
                window = self.windows.take(batches, self.progress.step)
                (targets,) = self.world.total(sum(batch.target_count for batch in window))
                self._step(window, int(targets))
                speed.synchronize(self.world.device)
                yield time.perf_counter() - start

    def _batches(self) -> Generator[Any]:
        yield from self.loader

    def _step(self, window: list[Any], targets: int) -> Taken:
        """One window: its backward passes and the optimizer steps they ask for."""
        self.stats.clear()
        self.model.schedule(self.progress.step / self.settings.steps)
        self.norms.clear()
        looking = self._norms_due(self.progress.step + 1)
        factors = self.factors(self.progress.step)
        rate_now = factors.rate * recovery.rate(self.progress.lineage)
        self.rate = self.recipe.optim.learning_rate * rate_now
        for group, (rate, decay) in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"], group["weight_decay"] = rate * rate_now, decay * factors.decay
        device = self.world.device
        loss = torch.zeros((), device=device)
        norm = torch.zeros((), device=device)
        share = [batch.target_count / max(targets, 1) for batch in window]
        passes = [self.task.passes(self.forward, batch) for batch in window]
        several = self.model.config.depth.passes > 1  # and then not as many in every process
        total = 0.0  # of the processes' shares of the loss
        taken, whole, overflowed = 0, True, False
        while True:
            reached = [self._backward(each, weight, loss) for each, weight in zip(passes, share, strict=True)]
            going = any(reached)
            if several:
                going = any(self.world.total(going))
            if not going:
                count = max(taken, 1)
                return Taken(loss / count, total / count, norm, whole, overflowed)
            taken += 1
            self.world.sum_gradients(self.parameters)
            self.scale.unscale(self.parameters)
            if looking:
                self.norms = gradient_norms.norms(self.named, self.world)
            norm = sharding.clip(self.world, self.parameters, self.recipe.optim.clip)
            mine, size = torch.stack([loss, norm.to(loss)]).tolist()
            total, broken = self.world.total(mine, not math.isfinite(size))  # the same in all processes
            if broken or not math.isfinite(total):
                whole = False
                overflowed = (self.scale.overflowed() and math.isfinite(total)) or overflowed
                self.optimizer.zero_grad(set_to_none=True)
                continue
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.scale.held()
            self.model.follow()
            if self.average is not None:
                self.average.update()

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the weights that it is used with."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def _backward(self, passes: Iterator[Any], weight: float, loss: Tensor) -> bool:
        """Run one micro-batch's objective to its next optimizer step; False when it has no more. Adds to `loss`."""
        while True:
            with self.world.accelerator.autocast():
                found = next(passes, None)
            if found is None:
                return False
            losses, step = found
            if len(losses) > 1:  # else it is the loss itself
                self._keep({LOSS + name: pair for name, pair in losses.items()})
            parts = [total / count.clamp(min=1) * weight for total, count in losses.values()]
            value = torch.stack(parts).sum()
            self.scale.scaled(value).backward()
            loss += value.detach()
            if step:
                return True

    def _sum_up(self, taken: Taken, targets: int) -> None:
        """Add a step to what the next log line will say, and tell if its loss is a spike."""
        mine = targets if self.world.index == 0 else 0  # the step's targets are everybody's: counted once
        pairs: dict[str, Any] = {"loss": (taken.share.to(self.tally.sums) * targets, mine)}
        self.tally.add(pairs | self.stats)
        spike = self.health.learned(taken.loss)
        if spike is not None:
            self._record({"spike": spike.loss, "median": spike.median})
            self.console.warn(
                f"step {self.progress.step}: the loss {spike.loss:.3f} is a spike, far above the {spike.median:.3f} of "
                f"the last {len(self.health.losses) - 1} steps"
            )

    def _skipped(self, taken: Taken) -> None:
        """Count a step that came to nothing, and tell."""
        if taken.overflowed:  # of fp16's scale: what follows is a smaller one
            return
        self.health.skip()
        self._record({"skipped": self.health.skipped})
        self.console.warn(f"step {self.progress.step}: {NOT_FINITE}; step skipped ({self.health.in_a_row} in a row)")

    def _after_step(self, norm: Tensor, shown: Steps) -> str:
        """Log, validate, sample and save where this step is due; the name of the checkpoint if one was written."""
        settings, step = self.settings, self.progress.step
        last = step == settings.steps
        if self.health.in_a_row >= settings.rollback_after:
            return self._go_back()
        metrics: dict[str, Any] = {}
        if self._due(settings.log_every, step):
            metrics = self._log(norm)
        # nothing is saved amid steps that come to nothing: what is saved is good
        saving = last or (self._due(settings.save_every, step) and not self.health.in_a_row)
        # a checkpoint can only be the best if its own score is known
        if saving or self._due(settings.validate_every, step):
            scores = self._validate()
            if not self._sound(scores):
                return self._go_back()
            metrics |= scores
        elif self.norms:
            self._record(self.norms)
        if self._due(settings.sample_every, step):
            self._sample()
        shown.update(step, metrics)
        return self._save() if saving else ""

    def _log(self, norm: Tensor) -> dict[str, Any]:
        speed.synchronize(self.world.device)
        timing = self.clock.lap(self.progress.tokens)
        means = self.tally.means()
        # no loss where every step since the line before was skipped
        loss, accuracy = (
            mean if count else None for mean, count in (means.pop(n, (0.0, 0.0)) for n in ("loss", "correct"))
        )
        band = self.settings.stop.loss_band
        if band is not None and loss is not None and band[0] <= loss <= band[1]:
            self.ended = f"the training loss {loss:.3f} is within {band[0]:g} and {band[1]:g}"
        metrics = {
            "loss": loss,
            "learning_rate": self.rate,
            "grad_norm": float(norm),
            "accuracy": accuracy,
            **{name: mean for name, (mean, count) in sorted(means.items()) if count},
            **self.task.logged(),
        }
        self._record(metrics, timing)
        return {**metrics, **timing}

    def _due(self, every: int, step: int) -> bool:
        """Whether what happens once in `every` steps, 0: never, and at the end, happens after `step`."""
        return step == self.settings.steps or bool(every and step % every == 0)

    def _norms_due(self, step: int) -> bool:
        settings = self.settings
        if settings.norms_every:
            return self._due(settings.norms_every, step)
        return self._due(settings.validate_every, step) or self._due(settings.save_every, step)

    def _sound(self, scores: dict[str, Any]) -> bool:
        """Whether the weights are fit to be saved: they and what they score are finite."""
        numbers = [value for value in scores.values() if isinstance(value, float)]
        return all(map(math.isfinite, numbers)) and sharding.finite(self.world, self.parameters)

    def _go_back(self) -> str:
        """Stand on the last good checkpoint again, behind the rows that led here (apps/common/recovery.py); its name."""
        now, run = self.progress, self.run_directory
        failed = now.step - max(self.health.in_a_row, 1) + 1

        def cut() -> dict[str, Any]:
            if run is None:
                raise RuntimeError("only the main process goes back")
            return recovery.go_back(
                run, now.step, failed, now.lineage, lambda first, stop: phases.between(self.recipe, first, stop)
            )

        answer = self.world.on_main(cut)
        path, event = Path(answer["checkpoint"]), answer["event"]
        saved = sharding.restored(
            self.world,
            self._parts(),
            lambda parts: recovery.restore(path, self.world, *parts, self.adapters, self.settings.steps),
        )
        now.health = self.health.row()
        recovery.stand_on(now, saved, event)
        self.health, self.scale = (
            Health(self.settings.spikes, now.health),
            LossScale(self.world.precision, now.loss_scale),
        )
        self.tally, self.ended = Tally(self.world, now.recent), None
        self.clock.back(now.tokens)
        if run is not None:
            # under the first step that follows: a run resumed from this checkpoint goes back again, and says so itself
            counts = {"rollback": recovery.times(now.lineage), "skipped": self.health.skipped}
            told = {name: event[name] for name in ("failed", "skipped_rows", "learning_rate_factor")}
            run.metrics.append({"step": now.step + 1, "tokens": now.tokens, **counts, **told})
            run.write_status("running", now.step, now.lineage)
        self.console.warn(
            f"step {failed}: {NOT_FINITE}; back at {path.name}, without the {event['skipped_rows']:,} rows since, with the "
            f"learning rate x {event['learning_rate_factor']:g}"
        )
        return path.name

    def _validate(self) -> dict[str, Any]:
        raw: dict[str, Any] = {}
        with self.clock.paused("validation"):
            if self.average is not None:
                found = self.task.validate(self.forward)
                raw = {RAW + name: value for name, value in found.items() if name.startswith("val_")}
            with self._averaged():
                metrics = self.task.validate(self.forward) | raw
        waited = patience.kept(self.settings.stop, self.progress.latest or {}, metrics)
        self.ended = patience.ended(self.settings.stop, waited) or self.ended
        self.progress.latest = {"step": self.progress.step, **metrics, **waited}
        self._record({**metrics, **self.norms})
        return metrics

    def _record(self, metrics: dict[str, Any], timing: dict[str, Any] | None = None) -> None:
        """Write to the logs and trackers; the main process only."""
        if self.run_directory is None:
            return
        step, tokens = self.progress.step, self.progress.tokens
        self.run_directory.metrics.append({"step": step, "tokens": tokens, **metrics})
        if timing is not None:
            self.run_directory.timing.append({"step": step, "tokens": tokens, **timing})
        if self.settings.trackers:
            self.world.accelerator.log({"tokens": tokens, **metrics, **(timing or {})}, step=step)

    def _sample(self) -> None:
        """The main process samples; the others meet it again at their next exchange."""
        with self.clock.paused("samples"), self._averaged():
            model = sharding.gathered_model(self.world, self.model)
            if self.run_directory is None:
                return
            with (
                self.world.accelerator.autocast(),
                torch.compiler.set_stance("force_eager"),  # decoding has a new shape each step
            ):
                self.run_directory.append_samples(self.task.sample(model, self.progress.step))

    def _save(self) -> str:
        """Write the checkpoint of this step; the main process writes what all of them hand it."""
        if not sharding.finite(self.world, self.parameters):
            self.world.on_main(self._refuse)
        step = self.progress.step
        with self.clock.paused("checkpoint"):
            states = self.world.gather(random_state.capture(self.world.device))
            recent = self.world.gather(json.dumps(self.tally.row()).encode())
            self.progress.recent = [json.loads(row) for row in recent]
            self.progress.health, self.progress.loss_scale = self.health.row(), self.scale.row()
            latest, best = self.progress.latest, self.progress.best
            scored = latest is not None and latest["step"] == step
            by = self.task.best_by
            if latest is not None and scored and (best is None or latest[by] < best.get(by, math.inf)):
                names = [name for name in (by, RAW + by) if name in latest]
                self.progress.best = {"step": step, **{name: latest[name] for name in names}}
            if isinstance(self.optimizer, DistributedMuon):
                self.optimizer.consolidate_state_dict()
            parts = sharding.gathered(self.world, self._parts())
            self.world.on_main(lambda: self._write(states, parts))
        return checkpoints.directory_of(step)

    def _refuse(self) -> None:
        good = recovery.last_good(self.run_directory.checkpoints) if self.run_directory else None
        raise recovery.failure(self.progress.step, good, recovery.times(self.progress.lineage))

    def _parts(self) -> sharding.Parts:
        return sharding.Parts(self.model, self.optimizer, self.average)

    def _write(self, states: list[bytes], parts: sharding.Parts) -> None:
        run = self.run_directory
        if run is None:
            raise RuntimeError("only the main process writes")
        step, best = self.progress.step, self.progress.best
        path = run.checkpoints / checkpoints.directory_of(step)
        if not path.exists():  # a stop right after resuming stands on what is saved already
            checkpoints.save(
                run,
                replace(self.progress),
                parts.model,
                parts.optimizer,
                states,
                self.task.save,
                parts.average,
                self.adapters,
            )
        best_name = checkpoints.directory_of(best["step"]) if best else None
        if best_name and (run.checkpoints / best_name).exists():
            run.point("best", run.checkpoints / best_name)
        run.write_status("running", step, self.progress.lineage)
        copied = self.mirror.offer(self.progress) if self.mirror else set()
        if not self.health.in_a_row:  # else what the run would go back to is an older one
            checkpoints.prune(run.checkpoints, self.settings.keep, {best_name, *copied})

    def _outcome(self, status: Literal["done", "stopped"], checkpoint: str) -> Outcome:
        return Outcome(status, self.progress, checkpoint, self.clock.average(), self.clock.seconds())
