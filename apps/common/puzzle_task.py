"""Learning puzzles in place: exact answers counted, cell by cell and board by board.

val_exact   share of the held-out puzzles whose every cell is right after the last supervision step
val_cells   share of their cells
val_loss    nats a cell
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import tinydata
from apps.common.processes import World
from apps.common.puzzles import PreparedPuzzles
from apps.common.recipe import Recipe
from apps.common.run_directory import sample_heading
from apps.common.task import Task
from tinycore import Decoder, objectives
from tinycore.objectives import Losses, solved
from tinydata.puzzles import PuzzleLoader


class PuzzleTask(Task):
    """See `Task`."""

    best_by: ClassVar[str] = "val_loss"

    def __init__(self, recipe: Recipe, prepared: PreparedPuzzles, world: World) -> None:
        """`recipe.train` has its micro_batch resolved."""
        self.world, self.boards = world, prepared.validation
        size = recipe.micro_batch(world.size)
        copies = bool(getattr(recipe.data, "copies", True))
        self.loader = PuzzleLoader(prepared.train, size, world.index, world.size, recipe.train.seed, copies)
        self.held_out = PuzzleLoader(self.boards, size, world.index, world.size, copies=False)
        self.rows = recipe.train.validate_rows
        self.objective = objectives.of(recipe.model)

    def passes(self, model: nn.Module, batch: tinydata.PuzzleBatch) -> Iterator[tuple[Losses, bool]]:
        """See `Task`."""
        return self.objective(model, *tensors(batch, self.world.device))

    def validate(self, model: nn.Module) -> dict[str, Any]:
        """See the module's docstring."""
        return self._scored(model, self.rows)

    @torch.no_grad()
    def _scored(self, model: nn.Module, rows: int) -> dict[str, Any]:
        training = model.training
        model.eval()
        sums = [0.0] * 5  # loss, cells right, cells, puzzles solved, puzzles
        for batch in self.held_out.epoch_batches(rows):
            inputs, answers = tensors(batch, self.world.device)
            with self.world.accelerator.autocast():
                out = model(inputs, targets=answers, return_logits=True)
            loss, count = out.losses["lm"]
            right = solved(out.logits, answers).sum()
            found = (loss, out.stats["correct"][0], count, right, len(inputs))
            sums = [total + float(value) for total, value in zip(sums, found, strict=True)]
        model.train(training)
        loss, correct, cells, whole, puzzles = self.world.total(*sums)
        return {
            "val_loss": loss / max(cells, 1),
            "val_exact": whole / max(puzzles, 1),
            "val_cells": correct / max(cells, 1),
        }

    def sample(self, model: Decoder, step: int) -> str:
        """The first held-out puzzle, and the answer as it grows from one supervision step to the next."""
        inputs, _ = self.boards.row(0)
        slots = self.boards.slots
        pieces = [sample_heading(step), "given", self.boards.show(inputs[slots:])]
        training = model.training
        model.eval()
        given = torch.from_numpy(inputs)[None].to(self.world.device)
        for number, (logits, _) in enumerate(answers_by_step(model, given), 1):
            codes = logits[0, slots:].argmax(-1).cpu().numpy()
            pieces += [f"after supervision step {number}", self.boards.show(codes)]
        model.train(training)
        lines = [f"    {line}" for piece in pieces[1:] for line in (*piece.splitlines(), "")]
        return "\n".join([pieces[0], *lines]) + "\n"

    def seconds(self, model: nn.Module, timed: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """From one batch of each process; samples are one board and take next to nothing."""
        one = self.held_out.batch_size * self.world.size
        few = min(one, self.rows, self.held_out.rows)
        return timed(lambda: self._scored(model, few)) * min(self.rows, self.held_out.rows) / few, 0.0


@torch.no_grad()
def answers_by_step(model: Decoder, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Logits (B, T, V) after each supervision step, and those of halting (B,) where the model has them; one step without
    recursion."""
    if not model.config.depth.recurs:
        yield model(inputs).logits, None
        return
    latents = model.begin(inputs)
    for _ in range(model.config.depth.passes):
        out = model(inputs, latents=latents)
        latents = out.latents
        yield out.logits, out.values["halt"][:, 0] if "halt" in out.values else None


def tensors(batch: tinydata.PuzzleBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """inputs, answers (B, T) int64 on `device`."""
    return torch.from_numpy(batch.inputs).to(device), torch.from_numpy(batch.answers).to(device)
