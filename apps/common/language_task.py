"""Learning text: packed rows, bits per byte, continued prompts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

import tinydata
from apps.common import loaders
from apps.common.data import Prepared
from apps.common.errors import BadRequest
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.samples import Sampler
from apps.common.task import Task
from apps.common.validation import Validator, to_device
from tinycore import Decoder, objectives
from tinycore.objectives import Losses

VALIDATION_ORDER = 0  # seed of the order that validation rows are drawn in, whatever the run's own seed
TIMED_BATCHES = 3  # that validation is timed with
TIMED_TOKENS = 4  # that a sample is timed with


class LanguageTask(Task):
    """See `Task`."""

    best_by: ClassVar[str] = "val_bpb"

    def __init__(self, recipe: Recipe, prepared: Prepared, world: World) -> None:
        """`recipe.train` has its micro_batch resolved."""
        self.world, self.recipe, self.tokenizer = world, recipe, prepared.tokenizer
        load = functools.partial(
            tinydata.Loader,
            sequence_length=recipe.data.positions,
            batch_size=recipe.micro_batch(world.size),
            rank=world.index,
            world=world.size,
        )
        self.loader: Any = loaders.text(
            recipe, prepared, recipe.micro_batch(world.size), rank=world.index, world=world.size
        )
        self.held_out = load(prepared.validation, seed=VALIDATION_ORDER)
        rows = recipe.train.validate_rows
        self.validator = Validator(world, self.held_out, rows)
        # the first rows that were trained on: their distance from the validation rows is what was memorised
        self.seen = Validator(world, self.loader, rows)
        self.sampler = Sampler(recipe.sample, self.tokenizer, recipe.train.seed)
        self.objective = objective_of(recipe)

    def passes(self, model: nn.Module, batch: tinydata.Batch) -> Iterator[tuple[Losses, bool]]:
        """See `Task`."""
        return self.objective(model, *to_device(batch, self.world.device))

    def validate(self, model: nn.Module) -> dict[str, Any]:
        """Bits per byte of the validation rows, and the distance to rows that were trained on."""
        score, seen = self.validator(model), self.seen(model)
        return {
            "val_loss": score.loss,
            "val_bpb": score.bpb,
            "val_accuracy": score.accuracy,
            "train_loss": seen.loss,
            "gap": score.loss - seen.loss,
        }

    def logged(self) -> dict[str, Any]:
        """How much of each source of a mixture was learned from so far."""
        if not isinstance(self.loader, tinydata.MixedLoader):
            return {}
        return {f"mixture/{name}": count for name, count in self.loader.tokens.items()}

    def sample(self, model: Decoder, step: int) -> str:
        """The recipe's prompts, continued."""
        return self.sampler(model, step)

    def save(self, directory: Path) -> None:
        """The tokenizer."""
        self.tokenizer.save(directory / "tokenizer.json")

    def seconds(self, model: Any, timed: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """From a few batches and a few tokens."""
        at_once = self.recipe.train.batch_size
        few = Validator(self.world, self.held_out, TIMED_BATCHES * at_once)
        few(model)  # the first time, memory is found
        batch = timed(lambda: few(model)) / min(TIMED_BATCHES, math.ceil(self.held_out.rows / at_once))
        scored = [min(self.recipe.train.validate_rows, loader.rows) for loader in (self.held_out, self.loader)]
        tokens = min(TIMED_TOKENS, self.recipe.sample.max_new_tokens)
        sampler = Sampler(replace(self.recipe.sample, max_new_tokens=tokens), self.tokenizer, self.recipe.train.seed)
        with self.world.accelerator.autocast():
            samples = timed(lambda: sampler(model, 0) if self.world.is_main else None) * self.world.size
        validation = batch * sum(math.ceil(rows / at_once) for rows in scored)
        return validation, samples * self.recipe.sample.max_new_tokens / tokens


def objective_of(recipe: Recipe) -> objectives.Objective:
    """Raises BadRequest for losses that the model's depth has no place for."""
    wanted = recipe.train.repetition
    try:
        return objectives.of(
            recipe.model, objectives.AgainstRepetition(wanted.smoothing, wanted.unlikelihood, wanted.entropy)
        )
    except ValueError as error:
        raise BadRequest(f"train.repetition: {error}") from None
