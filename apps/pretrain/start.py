"""Where a run begins: fresh weights, or those of another run (continued pretraining, with its lineage recorded)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import tinycore
import tinydata
from apps.common import checkpoints, compare, mirror, recipes, run_directory
from apps.common.checkpoints import Progress
from apps.common.command_line import Request
from apps.common.console import Console
from apps.common.data_config import TextData, TokenizerFile, TrainedTokenizer
from apps.common.errors import RunError
from apps.common.lora import Adapters, adapt
from apps.common.mirror import Mirror
from apps.common.problem_config import AnsweredData
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.run_directory import RunDirectory
from apps.common.tasks import Prepared
from apps.common.verdict_config import VerdictData
from tinycore import Decoder


@dataclass
class Start:
    """Where training begins: the run's directory and its mirror (main process only), model, progress, the checkpoint it is
    from, and the adapters in the model where they are what trains."""

    path: Path
    run: RunDirectory | None
    model: Decoder
    progress: Progress
    checkpoint: Path | None
    mirror: Mirror | None = None
    adapters: Adapters | None = None


def begin(
    request: Request, recipe: Recipe, prepared: Prepared, origin: Path | None, world: World, console: Console
) -> Start:
    """A new run, from fresh weights or from those in the checkpoint `origin`."""
    lineage: list[dict[str, Any]] = []
    if origin is not None:
        lineage = [{"event": "init-from", "checkpoint": str(origin), "step": _step_of(origin)}]
    model = first_model(recipe, prepared, lineage)
    adapters = adapted(model, recipe)
    wanted = request.out or Path("runs") / request.recipe_name
    run: RunDirectory | None = None
    copy: Mirror | None = None

    def make() -> str:
        nonlocal run, copy
        run = run_directory.create(wanted, recipe, lineage)
        try:
            copy = mirror.begin(run, recipe, 0, lineage, console)
        except BaseException:
            run.discard()  # what was refused never began, and the same command with another mirror does
            raise
        return str(run.path)

    path = Path(world.on_main(make))
    if path != wanted:
        console.say(f"{wanted} holds a finished run; this one goes to {path}")
    if origin is not None:
        console.say(f"weights of {origin}; optimizer, schedule and data begin anew")
    return Start(path, run, model, no_progress(recipe, prepared, world, lineage), None, copy, adapters)


def first_model(recipe: Recipe, prepared: Prepared, lineage: list[dict[str, Any]]) -> Decoder:
    """The model of step 0: that of the checkpoint the lineage begins with, or the one of the recipe's seed."""
    if lineage and lineage[0].get("event") == "init-from":
        origin = Path(lineage[0]["checkpoint"])
        model = checkpoints.load_model(origin)
        if recipe.model.heads.keys() > model.config.heads.keys():
            if recipe.train.lora is not None:
                new = ", ".join(sorted(recipe.model.heads.keys() - model.config.heads.keys()))
                raise RunError(f"train.lora: would freeze heads that are new ({new}); train them without adapters")
            torch.manual_seed(recipe.train.seed)
            with contextlib.suppress(ValueError):  # what else differs is told below
                model = tinycore.surgery.with_heads(model, recipe.model)
        _require_same_model(origin, model, recipe, prepared)
        return model
    torch.manual_seed(recipe.train.seed)
    return tinycore.build(recipe.model)


def adapted(model: Decoder, recipe: Recipe, checkpoint: Path | None = None) -> Adapters | None:
    """Freezes the model and puts the recipe's adapters into it, as they stand in `checkpoint`; None where it has none."""
    config = recipe.train.lora
    return None if config is None else adapt(model, config, recipe.train.seed, checkpoint)


def no_progress(recipe: Recipe, prepared: Prepared, world: World, lineage: list[dict[str, Any]]) -> Progress:
    """The progress of a run that has made none."""
    return Progress(
        step=0,
        tokens=0,
        data={},
        best=None,
        latest=None,
        recipe=recipes.to_dict(recipe),
        environment=compare.environment(world.device, world.size),
        dataset=prepared.dataset,
        tokenizer=prepared.codes,
        lineage=lineage,
    )


def with_tokenizer_of(origin: Path, recipe: Recipe, console: Console) -> Recipe:
    """Weights know ids, not words: a recipe that would train a tokenizer, or names one that has moved, takes that of
    the weights."""
    if not isinstance(recipe.data, TextData | AnsweredData | VerdictData):
        return recipe
    file, wanted = origin / "tokenizer.json", recipe.data.tokenizer
    gone = isinstance(wanted, TokenizerFile) and not Path(wanted.path).exists()
    if not (gone or isinstance(wanted, TrainedTokenizer)) or not file.is_file():
        return recipe
    reason = "the recipe's is gone" if gone else "a newly trained one would give the weights' ids other meanings"
    console.say(f"tokenizer: {file}, since {reason}")
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
    if saved.is_file() and tinydata.Tokenizer.load(saved).hash != prepared.codes:
        raise RunError(f"{origin}: was trained with another tokenizer; give --data.tokenizer.kind file and {saved}")


def _step_of(checkpoint: Path) -> int | None:
    match = checkpoints.NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else None
