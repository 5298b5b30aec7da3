"""One pretraining session: a new run, a run continued from its last checkpoint, or a new run from another's weights.

All processes go through the same steps. What touches the run directory is done by the main process, and what it decides
or refuses reaches the others through `World.on_main`.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

import tinycore
from apps.common import (
    checkpoints,
    compare,
    fit,
    freezing,
    horizon,
    logs,
    optimization,
    process_memory,
    processes,
    random_state,
    recipes,
    run_directory,
    sharding,
    tasks,
)
from apps.common.command_line import Request
from apps.common.console import Console
from apps.common.errors import RunError
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.run_directory import RunDirectory
from apps.common.run_record import checkpoint_of
from apps.common.signals import StopRequest
from apps.common.tasks import Prepared, prepare
from apps.common.trainer import Outcome, Trainer
from apps.pretrain.pace import fit_minutes
from apps.pretrain.resume import resume
from apps.pretrain.start import Start, begin, with_tokenizer_of
from tinycore import ConfigError

STOPPED = 3  # exit status of a run that was asked to stop and saved


def pretrain(request: Request, console: Console) -> int:
    """Carry out `request` in this process; the exit status. Raises BadRequest, ConfigError, ... and TrainingFailed."""
    began = time.perf_counter()
    recipe: Recipe = request.recipe
    derived = request.derived
    origin = checkpoint_of(request.init_from) if request.init_from else None
    if origin is not None:
        recipe = with_tokenizer_of(origin, recipe, console)
    _require_adaptable(recipe, request)
    if recipe.train.sharding != "none":
        sharding.require_possible(recipe, measured=_measured(recipe, request))
    left = freezing.trained(recipe)  # refuses patterns that match nothing before a run is made
    world = processes.start(request.device, recipe.train.precision, request.processes, recipe.train.trackers)
    try:
        recipe = _fitted(_resolved(recipe, world, request, console), world, request, console)
        if world.size > 1:
            world.on_main(lambda: prepare(recipe, console).key)  # the others find it prepared
        prepared = prepare(recipe, console)
        if recipe.train.epochs is not None and request.minutes is None:
            rows = tasks.task(recipe, prepared, world).loader.rows
            recipe, counted = horizon.with_epochs(recipe, rows, request.overrides)
            derived = horizon.updated(derived, counted)
        if _measured(recipe, request):
            recipe, fitted = fit_minutes(recipe, request, prepared, world, console, began)
            derived = horizon.updated(derived, fitted)
            if request.memory is not None:  # the dial may have turned the batch that the micro-batch has to divide
                recipe = _fitted(recipe, world, request, console)
        horizon.announce(request.dial, recipe, derived, console)
        if request.resume is not None:
            start = resume(request, recipe, prepared, world, console)
        else:
            start = begin(request, recipe, prepared, origin, world, console)
        return _train(start, recipe, prepared, request, world, console, left)
    finally:
        world.close()


def _measured(recipe: Recipe, request: Request) -> bool:
    """Whether the speed of a throw-away model decides how long the run is."""
    return request.minutes is not None or (recipe.train.max_hours is not None and request.resume is None)


def _require_adaptable(recipe: Recipe, request: Request) -> None:
    """Raises RunError where adapters were asked for and there is nothing to adapt, or nothing to measure them by."""
    if recipe.train.lora is None:
        return
    if request.init_from is None and request.resume is None:
        raise RunError("train.lora: adapts the weights of a trained model; give one with --init-from RUN")
    if _measured(recipe, request):
        given = "--minutes" if request.minutes is not None else "train.max_hours"
        raise RunError(f"train.lora: {given} measures the training of all weights; give --train.steps instead")


def _resolved(recipe: Recipe, world: World, request: Request, console: Console) -> Recipe:
    """The recipe with nothing left to be derived: precision and micro-batch are this world's."""
    try:
        micro_batch = recipe.micro_batch(world.size)
    except ConfigError:
        if request.resume is None:
            raise
        # the saved micro-batch was made for another number of processes; the order of the data does not depend on it
        micro_batch = replace(recipe, train=replace(recipe.train, micro_batch=None)).micro_batch(world.size)
        console.say(
            f"a micro-batch of {recipe.train.micro_batch} does not fit {world.size} processes; taking {micro_batch}"
        )
    return replace(recipe, train=replace(recipe.train, precision=world.precision, micro_batch=micro_batch))


def _fitted(recipe: Recipe, world: World, request: Request, console: Console) -> Recipe:
    """The recipe with what is recomputed settled and the micro-batch of `--memory`; without it a warning where memory is
    short."""

    def choose() -> dict[str, Any]:
        there = process_memory.free_bytes(world.device, world.local_size) if request.memory is None else None
        where = fit.Place(world.device.type, world.precision, 0)
        if request.memory is not None:
            where = fit.place(world.device.type, world.precision)
        chosen = fit.settled(recipe, where, there, request.memory, world.size)
        if recipe.train.recompute == "auto":
            console.say(f"recompute: {chosen.train.recompute} (auto)")
        if request.memory is None:
            micro_batch = chosen.micro_batch(world.size)
            warning = fit.shortage(chosen, where, micro_batch, world.size, there)
            if warning is not None:
                console.warn(warning)
        else:
            micro_batch = fit.largest(chosen, where, request.memory, world.size)
            console.say(fit.said(fit.predict(chosen, where, micro_batch, world.size), micro_batch))
        return {"micro_batch": micro_batch, "recompute": chosen.train.recompute}

    return replace(recipe, train=replace(recipe.train, **world.on_main(choose)))


def _train(
    start: Start, recipe: Recipe, prepared: Prepared, request: Request, world: World, console: Console, left: int
) -> int:
    """Train from `start` the `left` parameters that are not frozen, finish or stop, and say where the results are; the exit
    status."""
    model = start.model.to(world.device)
    world.same_everywhere(list(model.state_dict().values()))
    if recipe.train.freeze:
        freezing.freeze(model, recipe.train.freeze)
    optimizer = optimization.optimizer(recipe.optim, model)
    if start.checkpoint is not None:
        _, scalars = checkpoints.read_progress(start.checkpoint)
        model.schedule(max(start.progress.step - 1, 0) / recipe.train.steps)  # where its last step stood
        checkpoints.load_optimizer(start.checkpoint, scalars, model, optimizer)
    average = None if recipe.train.ema is None else tinycore.optim.WeightAverage(model, recipe.train.ema)
    if average is not None and start.checkpoint is not None:
        if (start.checkpoint / checkpoints.AVERAGE).is_file():
            checkpoints.load_average(start.checkpoint, average)
        else:
            console.warn("the run kept no average of its weights so far; it begins with the weights as they are")
    if recipe.train.sharding == "full":
        sharding.shard(recipe, world, sharding.Parts(model, optimizer, average))
    parameters = tinycore.count(recipe.model).parameters
    shards = ", in shards" if recipe.train.sharding == "full" and world.size > 1 else ""
    console.say(
        f"{freezing.said(parameters, left)} on {world.size} process{'es' if world.size > 1 else ''} "
        f"({world.device.type}, {world.precision}){shards}, into {start.path}"
    )
    if start.adapters is not None:
        console.say(start.adapters.summary())
    if recipe.train.trackers:
        world.accelerator.project_configuration.logging_dir = str(start.path)
        world.accelerator.init_trackers("trackers", config=_tracked(recipe))
    trainer = Trainer(
        recipe=recipe,
        world=world,
        run=start.run,
        console=console,
        model=model,
        optimizer=optimizer,
        factors=optimization.factors(recipe.optim, recipe.train.steps),
        task=tasks.task(recipe, prepared, world),
        progress=start.progress,
        elapsed=_elapsed(start.run),
        mirror=start.mirror,
        average=average,
        adapters=start.adapters,
        profile=request.profile,
    )
    _seed(recipe, start, world)
    facts = {"parameters": parameters, "processes": world.size, "data": prepared.content}
    try:
        if start.run is not None:
            start.run.write_status("running", start.progress.step, start.progress.lineage, **facts)
        if start.mirror is not None and start.checkpoint is not None:
            start.mirror.offer(start.progress)  # the mirror may be new, or behind
        with StopRequest() as stop:
            outcome = trainer.run(stop)
            mirrored = world.on_main(lambda: _finish(start, outcome, facts, stop, console))
    except BaseException:
        with contextlib.suppress(RunError, OSError):  # what went wrong first is what counts
            if start.run is not None:
                start.run.write_status("failed", start.progress.step, start.progress.lineage, **facts)
        raise
    finally:
        if start.mirror is not None:
            start.mirror.close()
        if start.run is not None:
            start.run.release()
    if outcome.status == "stopped":
        console.say(f"stopped ({stop.received or 'by another process'}) and saved at step {outcome.progress.step}")
        console.say(f"next: {run_directory.RESUME.format(start.path)}")
    else:
        console.say(f"next: {recipe.data.next_command.format(start.path)}")
    latest = outcome.progress.latest
    console.result(
        {
            "parameters": parameters,
            "processes": world.size,
            "steps": outcome.progress.step,
            "tokens": outcome.progress.tokens,
            **{
                name: value
                for name, value in (latest or {"val_bpb": None}).items()
                if name.startswith(("val_", "raw_"))
            },
            "tokens_per_second": outcome.tokens_per_second,
            "seconds": outcome.seconds,
            "checkpoint": str(start.path / "checkpoints" / outcome.checkpoint),
            "mirror": mirrored,
            "status": outcome.status,
        }
    )
    return STOPPED if outcome.status == "stopped" else 0


def _finish(start: Start, outcome: Outcome, facts: dict[str, Any], stop: StopRequest, console: Console) -> str | None:
    """The main process's last work: the final status, the report and the mirror; where the mirror is, if complete."""
    from apps.common import report  # matplotlib is needed here only

    run = start.run
    if run is None:
        raise RuntimeError("only the main process finishes a run")
    progress = outcome.progress
    run.write_status(
        outcome.status,
        progress.step,
        progress.lineage,
        **facts,
        tokens=progress.tokens,
        latest=progress.latest,
        best=progress.best,
        environment=progress.environment,
    )
    try:
        report.write(run.path)
        console.say(f"results: {run.path / 'report.md'}")
    except Exception as error:  # the run is complete without it, and it can be made again
        console.warn(f"the report failed ({type(error).__name__}: {error}); again: uv run apps/report {run.path}")
    if start.mirror is None:
        return None
    complete = start.mirror.finish(progress, stop.pending)
    best = checkpoints.directory_of(progress.best["step"]) if progress.best else None
    checkpoints.prune(run.checkpoints, progress.recipe["train"]["keep"], {best, *start.mirror.reading()})
    return str(start.mirror.path) if complete else None


def _seed(recipe: Recipe, start: Start, world: World) -> None:
    """Each process's random state: its saved one, or one of its own."""
    content = checkpoints.random_state(start.checkpoint, world.index) if start.checkpoint else None
    if content is not None:
        random_state.restore(content, world.device, str(start.checkpoint))
    else:
        random_state.seed(recipe.train.seed, world.index, start.progress.step)


def _elapsed(run: RunDirectory | None) -> float:
    """Seconds that earlier sessions spent on what is kept of the run."""
    if run is None or not run.timing.path.exists():
        return 0.0
    records = logs.read(run.timing.path)
    return float(records[-1].get("seconds") or 0.0) if records else 0.0


def _tracked(recipe: Recipe) -> dict[str, Any]:
    """The recipe as trackers take it: dotted keys, and values of plain types."""
    flat = compare.flatten(recipes.to_dict(recipe))
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in flat.items()}
