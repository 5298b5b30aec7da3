"""The training loop, the only one: every objective and every optimizer goes through `Trainer.run`.

One step is a window of `accumulation` micro-batches on each process. The targets in it are counted in NumPy and summed
over the processes before the first backward pass, so that every target of the window weighs the same:

    loss = sum over micro-batches of (sum / count) * (targets of the micro-batch / targets of the window)

which for next-token cross-entropy is its sum over the window divided by the window's targets. Gradients are summed over
the processes once, before the optimizer step: N processes compute what one computes with N times the accumulation.

An objective is a generator of (losses, step): a backward pass at each yield, an optimizer step when every micro-batch
of the window has reached a yield whose `step` is true. The learning rate is a pure function of the step. A step ends
with, in this order, its log line, validation, samples and checkpoint: no checkpoint is ahead of its logs.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

import tinycore
from apps.common import checkpoints, random_state, speed
from apps.common.checkpoints import Progress
from apps.common.clock import Clock
from apps.common.console import Console, Steps
from apps.common.errors import TrainingFailed
from apps.common.lora import Adapters
from apps.common.mirror import Mirror
from apps.common.optimization import Factors
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.run_directory import RunDirectory
from apps.common.signals import StopRequest
from apps.common.tally import Tally
from apps.common.task import Task
from tinycore import Decoder, registers
from tinycore.families import LOSS, Aux, add_aux
from tinycore.optim import WeightAverage

GRAPHS = 8  # of a layer for one shape: torch's own limit
NOT_FINITE = "loss or gradient not finite"  # how the message of such a failure begins


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last checkpoint, and its speed while it trained (validation and saving left out)."""

    status: Literal["done", "stopped"]
    progress: Progress
    checkpoint: str
    tokens_per_second: float
    seconds: float


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
    ) -> None:
        """`model`, its `average` and its `adapters` lie on the world's device, `recipe.train` has precision and micro_batch
        resolved; `run` and its `mirror` are given to the main process only. `progress` is where to go on from, after
        `elapsed` seconds."""
        self.recipe, self.settings, self.world, self.run_directory = recipe, recipe.train, world, run
        self.mirror, self.adapters = mirror, adapters
        self.console, self.model, self.optimizer, self.factors = console, model, optimizer, factors
        self.task, self.loader, self.progress, self.average = task, task.loader, progress, average
        self.accumulation = recipe.accumulation(world.size)
        if progress.data:
            self.loader.load_state_dict(progress.data)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.peaks = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        model.recompute(self.settings.recompute)
        self.forward = self._prepared(model)
        # of this step: statistics of the model's forward passes, and the objective's losses where it has several
        self.stats: Aux = {}
        self.tally = Tally(world, progress.recent)
        self.forward.register_forward_hook(self._remember)
        # the first step whose gradient was not finite; kept on the device, so that no step waits to look at it
        self.broken = torch.full((), self.settings.steps, dtype=torch.int64, device=world.device)
        self.clock = Clock(world, tinycore.count(recipe.model).flops_per_token(recipe.data.positions))
        self.clock.start(progress.tokens, elapsed)
        self.ended: str | None = None  # why the run ends before its steps do

    def _prepared(self, model: Decoder) -> nn.Module:
        """The module that training calls: autocast by Accelerate, layers compiled on request, not wrapped for gradients.

        Layers of one kind share one compiled graph, so compiling takes as long for 2 of them as for 30.
        """
        if self.settings.compile:
            if model.config.embed.register_slots:  # rows are as wide as their documents are many
                config: Any = torch._dynamo.config
                widths = registers.widths(self.recipe.data.positions)
                config.recompile_limit = max(config.recompile_limit, GRAPHS * widths)
            for layer in model.layers:
                layer.compile(dynamic=False)
        return self.world.accelerator.prepare_model(model, evaluation_mode=True)

    def _remember(self, module: nn.Module, given: Any, out: tinycore.Output) -> None:
        """Keep the statistics of a forward pass of training: objectives yield losses only."""
        if module.training:
            self._keep(out.stats)

    def _keep(self, found: Aux) -> None:
        add_aux(self.stats, {name: (total.detach(), count.detach()) for name, (total, count) in found.items()})

    def run(self, stop: StopRequest) -> Outcome:
        """Train up to `recipe.train.steps`, or until a process is asked to stop; saved in both cases.

        Raises TrainingFailed when the loss is no longer finite or a process is lost, RunError on a full disk.
        """
        saved = ""
        with (
            self.console.progress(self.settings.steps) as shown,
            contextlib.closing(self._batches()) as batches,
        ):
            while self.progress.step < self.settings.steps:
                self.progress.data = self.loader.state_dict()
                with self.clock.waiting():
                    window = [next(batches) for _ in range(self.accumulation)]
                counted = sum(batch.target_count for batch in window)
                targets, stops = self.world.total(counted, stop.pending())
                if stops:
                    saved = saved or self._save()
                    return self._outcome("stopped", saved)
                loss, norm = self._step(window, int(targets))
                self._sum_up(loss, int(targets))
                self.progress.step += 1
                self.progress.tokens += int(targets)
                self.progress.data = self.loader.state_dict()
                saved = self._after_step(norm, shown)
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
                window = [next(batches) for _ in range(self.accumulation)]
                (targets,) = self.world.total(sum(batch.target_count for batch in window))
                self._step(window, int(targets))
                speed.synchronize(self.world.device)
                yield time.perf_counter() - start

    def _batches(self) -> Generator[Any]:
        yield from self.loader

    def _step(self, window: list[Any], targets: int) -> tuple[Tensor, Tensor]:
        """One window: its backward passes and the optimizer steps they ask for. Returns this process's share of the
        loss, the mean over these steps, and the last norm of the gradient."""
        self.stats.clear()
        self.model.schedule(self.progress.step / self.settings.steps)
        factors = self.factors(self.progress.step)
        for group, (rate, decay) in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"], group["weight_decay"] = rate * factors.rate, decay * factors.decay
        device = self.world.device
        loss = torch.zeros((), device=device)
        norm = torch.zeros((), device=device)
        share = [batch.target_count / max(targets, 1) for batch in window]
        passes = [self.task.passes(self.forward, batch) for batch in window]
        several = self.model.config.depth.passes > 1  # and then not as many in every process
        taken = 0
        while True:
            reached = [self._backward(each, weight, loss) for each, weight in zip(passes, share, strict=True)]
            going = any(reached)
            if several:
                going = any(self.world.total(going))
            if not going:
                return loss / max(taken, 1), norm
            taken += 1
            self.world.sum_gradients(self.parameters)
            norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.optim.clip)
            now = torch.full_like(self.broken, self.progress.step)
            self.broken = torch.where(norm.isfinite(), self.broken, torch.minimum(self.broken, now))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
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
            value.backward()
            loss += value.detach()
            if step:
                return True

    def _sum_up(self, loss: Tensor, targets: int) -> None:
        """Add a step to what the next log line will say, without waiting for the device."""
        mine = targets if self.world.index == 0 else 0  # the step's targets are everybody's: counted once
        pairs: dict[str, Any] = {"loss": (loss.to(self.tally.sums) * targets, mine)}
        self.tally.add(pairs | self.stats)

    def _after_step(self, norm: Tensor, shown: Steps) -> str:
        """Log, validate, sample and save where this step is due; the name of the checkpoint if one was written."""
        settings, step = self.settings, self.progress.step
        last = step == settings.steps

        def due(every: int) -> bool:
            return last or bool(every and step % every == 0)

        metrics: dict[str, Any] = {}
        if due(settings.log_every):
            metrics = self._log(norm)
        saving = due(settings.save_every)
        # a checkpoint can only be the best if its own score is known
        if saving or due(settings.validate_every):
            metrics |= self._validate()
        if due(settings.sample_every):
            self._sample()
        shown.update(step, metrics)
        return self._save() if saving else ""

    def _log(self, norm: Tensor) -> dict[str, Any]:
        speed.synchronize(self.world.device)
        timing = self.clock.lap(self.progress.tokens)
        means = self.tally.means()
        loss, accuracy = (means.pop(name, (0.0, 0.0))[0] for name in ("loss", "correct"))
        self._require_finite(loss)
        band = self.settings.stop.loss_band
        if band is not None and band[0] <= loss <= band[1]:
            self.ended = f"the training loss {loss:.3f} is within {band[0]:g} and {band[1]:g}"
        metrics = {
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "grad_norm": float(norm),
            "accuracy": accuracy,
            **{name: mean for name, (mean, count) in sorted(means.items()) if count},
            **self.task.logged(),
        }
        self._record(metrics, timing)
        return {**metrics, **timing}

    def _require_finite(self, loss: float = 0.0) -> None:
        """Raise TrainingFailed if a step so far was not finite. The same in all processes: their gradients are."""
        first = min(int(self.broken), self.settings.steps if math.isfinite(loss) else self.progress.step - 1)
        if first < self.settings.steps:
            found = checkpoints.newest(self.run_directory.checkpoints) if self.run_directory else None
            good = f"the last good checkpoint is {found.path}" if found else "there is no checkpoint yet"
            raise TrainingFailed(
                f"{NOT_FINITE} at step {first + 1}; {good}. Lower optim.learning_rate or optim.clip, "
                "or look at the data of that step"
            )

    def _validate(self) -> dict[str, Any]:
        self._require_finite()
        with self.clock.paused("validation"), self._averaged():
            metrics = self.task.validate(self.forward)
        self.progress.latest = {"step": self.progress.step, **metrics, **self._patience(metrics)}
        self._record(metrics)
        return metrics

    def _patience(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The best of what patience looks at, and how many validations ago it was: kept with the latest, so in checkpoints."""
        patience = self.settings.stop.patience
        if patience is None:
            return {}
        score = metrics["val_exact"] if "val_exact" in metrics else -metrics["val_loss"]
        before = self.progress.latest or {}
        top = before.get("patience_best")
        better = top is None or score > top
        waited = 0 if better else before.get("patience_waited", 0) + 1
        if waited >= patience:
            self.ended = f"{waited} validations without a better one"
        return {"patience_best": score if better else top, "patience_waited": waited}

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
        self._require_finite()
        if self.run_directory is None:
            return
        with (
            self.clock.paused("samples"),
            self.world.accelerator.autocast(),
            torch.compiler.set_stance("force_eager"),  # decoding has a new shape each step
            self._averaged(),
        ):
            self.run_directory.append_samples(self.task.sample(self.model, self.progress.step))

    def _save(self) -> str:
        """Write the checkpoint of this step; the main process writes what all of them hand it."""
        self._require_finite()
        step = self.progress.step
        with self.clock.paused("checkpoint"):
            states = self.world.gather(random_state.capture(self.world.device))
            recent = self.world.gather(json.dumps(self.tally.row()).encode())
            self.progress.recent = [json.loads(row) for row in recent]
            latest, best = self.progress.latest, self.progress.best
            scored = latest is not None and latest["step"] == step
            by = self.task.best_by
            if latest is not None and scored and (best is None or latest[by] < best.get(by, math.inf)):
                self.progress.best = {"step": step, by: latest[by]}
            self.world.on_main(lambda: self._write(states))
        return checkpoints.directory_of(step)

    def _write(self, states: list[bytes]) -> None:
        run = self.run_directory
        if run is None:
            raise RuntimeError("only the main process writes")
        step, best = self.progress.step, self.progress.best
        path = run.checkpoints / checkpoints.directory_of(step)
        if not path.exists():  # a stop right after resuming stands on what is saved already
            checkpoints.save(
                run,
                replace(self.progress),
                self.model,
                self.optimizer,
                states,
                self.task.save,
                self.average,
                self.adapters,
            )
        best_name = checkpoints.directory_of(best["step"]) if best else None
        if best_name and (run.checkpoints / best_name).exists():
            run.point("best", run.checkpoints / best_name)
        run.write_status("running", step, self.progress.lineage)
        copied = self.mirror.offer(self.progress) if self.mirror else set()
        checkpoints.prune(run.checkpoints, self.settings.keep, {best_name, *copied})

    def _outcome(self, status: Literal["done", "stopped"], checkpoint: str) -> Outcome:
        return Outcome(status, self.progress, checkpoint, self.clock.average(), self.clock.seconds())
