"""One pretraining session: a new run, a run continued from its last checkpoint, or a new run from another's weights.

All processes go through the same steps. What touches the run directory is done by the main process, and what it decides
or refuses reaches the others through `World.on_main`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import tinycore
from apps.common import (
    checkpoints,
    compare,
    logs,
    optimization,
    processes,
    random_state,
    recipes,
    run_directory,
)
from apps.common.checkpoints import Progress
from apps.common.command_line import Request
from apps.common.console import Console
from apps.common.data import Prepared, prepare
from apps.common.errors import RunError
from apps.common.processes import World
from apps.common.recipe import Recipe, TokenizerFile, TrainedTokenizer
from apps.common.run_directory import RunDirectory
from apps.common.signals import StopRequest
from apps.common.trainer import Outcome, Trainer
from tinycore import ConfigError, Decoder

STOPPED = 3  # exit status of a run that was asked to stop and saved


@dataclass
class Start:
    """Where training begins: the run's directory (main process only), model, progress and the checkpoint it is from."""

    path: Path
    run: RunDirectory | None
    model: Decoder
    progress: Progress
    checkpoint: Path | None


def pretrain(request: Request, console: Console) -> int:
    """Carry out `request` in this process; the exit status. Raises BadRequest, ConfigError, ... and TrainingFailed."""
    recipe: Recipe = request.recipe
    origin = _weights_of(request.init_from) if request.init_from else None
    if origin is not None:
        recipe = _with_tokenizer_of(origin, recipe, console)
    world = processes.start(request.device, recipe.train.precision, request.processes, recipe.train.trackers)
    try:
        recipe = _resolved(recipe, world, request, console)
        if world.size > 1:
            world.on_main(lambda: prepare(recipe, console).key)  # the others find it prepared
        prepared = prepare(recipe, console)
        if request.resume is not None:
            start = _resume(request, recipe, prepared, world, console)
        else:
            start = _begin(request, recipe, prepared, origin, world, console)
        return _train(start, recipe, prepared, request, world, console)
    finally:
        world.close()


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


def _begin(
    request: Request, recipe: Recipe, prepared: Prepared, origin: Path | None, world: World, console: Console
) -> Start:
    """A new run, from fresh weights or from those in the checkpoint `origin`."""
    if origin is None:
        model = _fresh(recipe)
        lineage = []
    else:
        model = tinycore.load(origin)
        _require_same_model(origin, model, recipe, prepared)
        lineage = [{"event": "init-from", "checkpoint": str(origin), "step": _step_of(origin)}]
    wanted = request.out or Path("runs") / request.recipe_name
    run: RunDirectory | None = None

    def make() -> str:
        nonlocal run
        run = run_directory.create(wanted, recipe, lineage)
        return str(run.path)

    path = Path(world.on_main(make))
    if path != wanted:
        console.say(f"{wanted} holds a finished run; this one goes to {path}")
    if origin is not None:
        console.say(f"weights of {origin}; optimizer, schedule and data begin anew")
    return Start(path, run, model, _progress(recipe, prepared, world, lineage), None)


def _resume(request: Request, recipe: Recipe, prepared: Prepared, world: World, console: Console) -> Start:
    """A run continued exactly where its newest good checkpoint stands."""
    path = (
        request.resume
        if isinstance(request.resume, Path)
        else request.out or Path("runs") / request.recipe_name
    )
    run: RunDirectory | None = None

    def find() -> dict[str, Any]:
        nonlocal run
        run, status = run_directory.reopen(path)
        if status["status"] == "done" and status["step"] >= recipe.train.steps:
            raise RunError(
                f"{path}: is finished (step {status['step']}); to train on, give --train.steps N --allow-changes"
            )
        found = checkpoints.newest(run.checkpoints)
        if found is None:
            run.cut(0)
            return {"checkpoint": None, "lineage": status.get("lineage", [])}
        saved, _ = checkpoints.read_progress(found.path)
        lineage = [*saved.lineage, _resumption(saved, recipe, prepared, request, world, console)]
        for damaged, reason in found.damaged:
            console.warn(f"{reason}; going back to {found.path.name}")
            console.warn(f"kept what is damaged as {checkpoints.set_aside(damaged).name}")
        run.cut(saved.step)
        run.point("latest", found.path)
        run.write_recipe(recipe)
        return {"checkpoint": str(found.path), "lineage": lineage}

    answer = world.on_main(find)
    if answer["checkpoint"] is None:
        console.say(f"{path} has no checkpoint yet; starting it over")
        return Start(path, run, _fresh(recipe), _progress(recipe, prepared, world, answer["lineage"]), None)
    checkpoint = Path(answer["checkpoint"])
    model = tinycore.load(checkpoint)
    saved, _ = checkpoints.read_progress(checkpoint)
    progress = _progress(recipe, prepared, world, answer["lineage"])
    same_data = saved.dataset == progress.dataset and _order(saved.recipe) == _order(progress.recipe)
    if not same_data:
        console.warn("the data or its order changed: reading it from its beginning")
    progress = replace(
        progress,
        step=saved.step,
        tokens=saved.tokens,
        data=saved.data if same_data else {},
        best=saved.best,
        latest=saved.latest,
    )
    console.say(f"resuming {path} at step {saved.step} of {recipe.train.steps}")
    return Start(path, run, model, progress, checkpoint)


def _resumption(
    saved: Progress, recipe: Recipe, prepared: Prepared, request: Request, world: World, console: Console
) -> dict[str, Any]:
    """What the continuation changes, as an entry of the lineage. Raises RunError for what may not change."""
    now = _progress(recipe, prepared, world, [])
    found = compare.differences(_compared(saved), _compared(now))
    by = {verdict: [entry for entry in found if entry.verdict == verdict] for verdict in compare.VERDICTS}
    if by["architecture"]:
        first = by["architecture"][0]
        more = f" and {len(by['architecture']) - 1} more" if len(by["architecture"]) > 1 else ""
        raise RunError(
            f"{first.key}: the run has {first.saved}, the request {first.requested}{more}; a run keeps its "
            "architecture and tokenizer (start another with --out, from these weights with --init-from)"
        )
    if saved.step > recipe.train.steps:
        raise RunError(f"train.steps: the run stands at step {saved.step}, past {recipe.train.steps}")
    if by["training"]:
        console.warn("saved -> requested:\n" + compare.side_by_side(by["training"]))
        if not (request.allow_changes or console.ask("Continue with these changes?")):
            keys = ", ".join(entry.key for entry in by["training"])
            raise RunError(
                f"the request differs from the saved run in {keys}; add --allow-changes to go on so"
            )
    if by["numerics"]:
        console.warn("not bit-exact from here on, because\n" + compare.side_by_side(by["numerics"]))
    if by["reporting"]:
        console.say("changed, without effect on the weights:\n" + compare.side_by_side(by["reporting"]))
    changes = {entry.key: [entry.saved, entry.requested] for entry in found}
    return {"event": "resume", "step": saved.step, "changes": changes}


def _compared(progress: Progress) -> dict[str, Any]:
    return {
        **progress.recipe,
        "tokenizer": progress.tokenizer,
        "dataset": progress.dataset,
        "environment": progress.environment,
    }


def _order(recipe: dict[str, Any]) -> list[Any]:
    """What the position in the data is a position in, beside the data."""
    return [recipe["data"]["sequence_length"], recipe["train"]["seed"]]


def _train(
    start: Start, recipe: Recipe, prepared: Prepared, request: Request, world: World, console: Console
) -> int:
    """Train from `start`, finish or stop, and say where the results are; the exit status."""
    model = start.model.to(world.device)
    world.same_everywhere(list(model.state_dict().values()))
    optimizer = optimization.optimizer(recipe.optim, model)
    if start.checkpoint is not None:
        _, scalars = checkpoints.read_progress(start.checkpoint)
        checkpoints.load_optimizer(start.checkpoint, scalars, model, optimizer)
    parameters = tinycore.count(recipe.model).parameters
    console.say(
        f"{parameters:,} parameters on {world.size} process{'es' if world.size > 1 else ''} "
        f"({world.device.type}, {world.precision}), into {start.path}"
    )
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
        schedule=optimization.schedule(recipe.optim.schedule, recipe.train.steps),
        objective=tinycore.objectives.next_token,
        train=prepared.train,
        validation=prepared.validation,
        tokenizer=prepared.tokenizer,
        progress=start.progress,
        elapsed=_elapsed(start.run),
    )
    _seed(recipe, start, world)
    facts = {"parameters": parameters, "processes": world.size, "data": prepared.manifest["sha256"]}
    try:
        if start.run is not None:
            start.run.write_status("running", start.progress.step, start.progress.lineage, **facts)
        with StopRequest() as stop:
            outcome = trainer.run(stop)
            world.on_main(lambda: _finish(start, outcome, facts, console))
    except BaseException:
        with contextlib.suppress(RunError, OSError):  # what went wrong first is what counts
            if start.run is not None:
                start.run.write_status("failed", start.progress.step, start.progress.lineage, **facts)
        raise
    finally:
        if start.run is not None:
            start.run.release()
    if outcome.status == "stopped":
        console.say(
            f"stopped ({stop.received or 'by another process'}) and saved at step {outcome.progress.step}"
        )
        console.say(f"next: {run_directory.RESUME.format(start.path)}")
    else:
        console.say(f"next: uv run apps/chat {start.path}")
    latest = outcome.progress.latest
    console.result(
        {
            "parameters": parameters,
            "processes": world.size,
            "steps": outcome.progress.step,
            "tokens": outcome.progress.tokens,
            "val_bpb": latest["val_bpb"] if latest else None,
            "tokens_per_second": outcome.tokens_per_second,
            "seconds": outcome.seconds,
            "checkpoint": str(start.path / "checkpoints" / outcome.checkpoint),
            "status": outcome.status,
        }
    )
    return STOPPED if outcome.status == "stopped" else 0


def _finish(start: Start, outcome: Outcome, facts: dict[str, Any], console: Console) -> None:
    """The main process's last work: the final status and the report."""
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
        console.warn(
            f"the report failed ({type(error).__name__}: {error}); again: uv run apps/report {run.path}"
        )


def _weights_of(path: Path) -> Path:
    """The checkpoint that `path`, a checkpoint or a run, gives: a run's best, or else its latest. Raises RunError."""
    if (path / "manifest.json").is_file():
        return path
    for pointer in ("best", "latest"):
        if (path / pointer).is_file():
            name = (path / pointer).read_text(encoding="utf-8").strip()
            if Path(name).name == name and (path / "checkpoints" / name).is_dir():
                return path / "checkpoints" / name
    raise RunError(f"{path}: neither a checkpoint nor a run that has one")


def _with_tokenizer_of(origin: Path, recipe: Recipe, console: Console) -> Recipe:
    """Weights know ids, not words: a recipe that would train a tokenizer takes that of the weights."""
    file = origin / "tokenizer.json"
    if not isinstance(recipe.data.tokenizer, TrainedTokenizer) or not file.is_file():
        return recipe
    console.say(f"tokenizer: {file}, since a newly trained one would give the weights' ids other meanings")
    return replace(recipe, data=replace(recipe.data, tokenizer=TokenizerFile(path=str(file))))


def _require_same_model(origin: Path, model: Decoder, recipe: Recipe, prepared: Prepared) -> None:
    found = compare.differences({"model": model.config.to_dict()}, {"model": recipe.model.to_dict()})
    if found:
        first, more = found[0], f" ({len(found) - 1} more differ)" if len(found) > 1 else ""
        raise RunError(
            f"{origin}: {first.key} is {first.saved} in these weights and {first.requested} in the recipe{more}; "
            "give the recipe.yaml of their run to --recipe"
        )
    saved = origin / "tokenizer.json"
    if saved.is_file() and type(prepared.tokenizer).load(saved).hash != prepared.tokenizer.hash:
        raise RunError(
            f"{origin}: was trained with another tokenizer; give --data.tokenizer.kind file and {saved}"
        )


def _step_of(checkpoint: Path) -> int | None:
    match = checkpoints.NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else None


def _fresh(recipe: Recipe) -> Decoder:
    torch.manual_seed(recipe.train.seed)
    return tinycore.build(recipe.model)


def _seed(recipe: Recipe, start: Start, world: World) -> None:
    """Each process's random state: its saved one, or one of its own."""
    content = checkpoints.random_state(start.checkpoint, world.index) if start.checkpoint else None
    if content is not None:
        random_state.restore(content, world.device, str(start.checkpoint))
    else:
        random_state.seed(recipe.train.seed, world.index, start.progress.step)


def _progress(recipe: Recipe, prepared: Prepared, world: World, lineage: list[dict[str, Any]]) -> Progress:
    """The progress of a run that has made none."""
    return Progress(
        step=0,
        tokens=0,
        data={},
        best=None,
        latest=None,
        recipe=recipes.to_dict(recipe),
        environment=compare.environment(world.device, world.size),
        dataset={"train": prepared.train.content_key, "validation": prepared.validation.content_key},
        tokenizer=prepared.tokenizer.hash,
        lineage=lineage,
    )


def _elapsed(run: RunDirectory | None) -> float:
    """Seconds that earlier sessions spent on what is kept of the run."""
    if run is None or not run.timing.path.exists():
        return 0.0
    records = logs.read(run.timing.path)
    return float(records[-1].get("seconds") or 0.0) if records else 0.0


def _tracked(recipe: Recipe) -> dict[str, Any]:
    """The recipe as trackers take it: dotted keys, and values of plain types."""
    flat = compare.flatten(recipes.to_dict(recipe))
    return {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flat.items()
    }
