"""Going on with a run: exactly, or with what may change listed, permitted and recorded."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import tinycore
from apps.common import checkpoints, compare, mirror, recipes, run_directory
from apps.common.checkpoints import Progress
from apps.common.command_line import Request
from apps.common.console import Console
from apps.common.errors import RunError
from apps.common.mirror import Mirror
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.run_directory import RunDirectory
from apps.common.tasks import Prepared
from apps.pretrain.start import Start, adapted, first_model, no_progress
from tinycore import ConfigError


def resume(request: Request, recipe: Recipe, prepared: Prepared, world: World, console: Console) -> Start:
    """A run continued exactly where its newest good checkpoint stands."""
    path = request.resume if isinstance(request.resume, Path) else request.out or Path("runs") / request.recipe_name
    run: RunDirectory | None = None
    copy: Mirror | None = None

    def find() -> dict[str, Any]:
        nonlocal run, copy
        run, status = run_directory.reopen(path)
        if status["status"] == "done" and status["step"] >= recipe.train.steps:
            raise RunError(
                f"{path}: is finished (step {status['step']}); to train on, give --train.steps N --allow-changes"
            )
        found = checkpoints.newest(run.checkpoints)
        if found is None:
            lineage = status.get("lineage", [])
            copy = mirror.begin(run, recipe, 0, lineage, console)
            run.cut(0)
            run.write_recipe(recipe)
            return {"checkpoint": None, "lineage": lineage}
        saved, _ = checkpoints.read_progress(found.path)
        lineage = [*saved.lineage, _resumption(saved, recipe, prepared, request, world, console)]
        copy = mirror.begin(run, recipe, saved.step, lineage, console)
        for damaged, reason in found.damaged:
            console.warn(f"{reason}; going back to {found.path.name}")
            console.warn(f"kept what is damaged as {checkpoints.set_aside(damaged).name}")
        run.write_recipe(recipe)
        checkpoints.stand_on(run, found.path, saved)
        return {"checkpoint": str(found.path), "lineage": lineage}

    answer = world.on_main(find)
    if answer["checkpoint"] is None:
        console.say(f"{path} has no checkpoint yet; starting it over")
        model = first_model(recipe, prepared, answer["lineage"])
        progress = no_progress(recipe, prepared, world, answer["lineage"])
        return Start(path, run, model, progress, None, copy, adapted(model, recipe))
    checkpoint = Path(answer["checkpoint"])
    model = tinycore.load(checkpoint)
    adapters = adapted(model, recipe, checkpoint)
    saved, _ = checkpoints.read_progress(checkpoint)
    progress = no_progress(recipe, prepared, world, answer["lineage"])
    same_data = _order(saved) == _order(progress)
    if not same_data:
        console.warn("the data or its order changed: reading it from its beginning")
    same_score = saved.dataset["validation"] == progress.dataset["validation"]
    progress = replace(
        progress,
        step=saved.step,
        tokens=saved.tokens,
        data=saved.data if same_data else {},
        best=saved.best if same_score else None,
        latest=saved.latest if same_score else None,
        recent=saved.recent,
        health=saved.health,
        loss_scale=saved.loss_scale,
    )
    console.say(f"resuming {path} at step {saved.step} of {recipe.train.steps}")
    return Start(path, run, model, progress, checkpoint, copy, adapters)


def _resumption(
    saved: Progress, recipe: Recipe, prepared: Prepared, request: Request, world: World, console: Console
) -> dict[str, Any]:
    """What the continuation changes, as an entry of the lineage. Raises RunError for what may not change."""
    now = no_progress(recipe, prepared, world, [])
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
            raise RunError(f"the request differs from the saved run in {keys}; add --allow-changes to go on so")
    if by["numerics"]:
        console.warn("not bit-exact from here on, because\n" + compare.side_by_side(by["numerics"]))
    if by["reporting"]:
        console.say("changed, without effect on the weights:\n" + compare.side_by_side(by["reporting"]))
    changes = {entry.key: [entry.saved, entry.requested] for entry in found}
    return {"event": "resume", "step": saved.step, "changes": changes}


def _compared(progress: Progress) -> dict[str, Any]:
    """What is compared, settings that came after the run began with the default that it had without them."""
    recipe = progress.recipe
    with contextlib.suppress(ConfigError):
        recipe = recipes.to_dict(recipes.from_dict(recipe))
    return {
        **recipe,
        "tokenizer": progress.tokenizer,
        "dataset": progress.dataset,
        "environment": progress.environment,
    }


def _order(progress: Progress) -> list[Any]:
    """What the position in the data is a position in."""
    recipe = progress.recipe
    return [progress.dataset["train"], recipe["data"].get("sequence_length"), recipe["train"]["seed"]]
