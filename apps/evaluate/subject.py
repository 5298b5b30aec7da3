"""What is evaluated, loaded: a language model with its tokenizer and tools, or a model that answers its own puzzles in
place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from apps.common import checkpoints, eval_tasks, run_record, solver, tool_use
from apps.common.console import Console
from apps.common.errors import RunError
from apps.common.eval_model import CheckpointModel
from apps.common.recipe import Recipe
from apps.common.run_record import RunRecord
from apps.common.solver import Solver
from apps.evaluate import auto, grids, spectra
from apps.evaluate.grids import PuzzleModel
from apps.evaluate.settings import Settings
from apps.evaluate.stored import Place
from tinycore import Decoder
from tinyeval import Task
from tinyeval.sources import Generator


@dataclass(frozen=True)
class Subject:
    """solver: of a language model; None for one that answers in place. context: of texts, in tokens."""

    where: Place
    decoder: Decoder
    model: CheckpointModel | PuzzleModel
    recipe: Recipe | None
    solver: Solver | None
    generators: Mapping[str, Generator]
    context: int | None

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.decoder.parameters())

    @property
    def tokenizer_id(self) -> str | None:
        return self.model.tokenizer_id if isinstance(self.model, CheckpointModel) else None

    def candidates(self, named: Mapping[str, Path]) -> list[Task]:
        """The tasks that make sense for it."""
        if isinstance(self.model, PuzzleModel):
            return [grids.task_of(self.model.data)]
        assert self.solver is not None
        return auto.candidates(self.solver, self.recipe, named)

    def rows(self) -> torch.Tensor:
        """(R, T) token ids that it has not learned from, to look at its activations."""
        if isinstance(self.model, PuzzleModel):
            return self.model.rows(spectra.TOKENS)
        texts = [text for part in eval_tasks.PARTS for text in eval_tasks.held_out(part, 10)]
        return spectra.rows_of(texts, self.model.tokenizer, self.model.longest)


def load(path: Path, where: Place, settings: Settings, console: Console) -> Subject:
    """What the run or checkpoint at `path` holds. Raises one-line errors."""
    recipe = grids.recipe_of(where.checkpoint)
    data = grids.puzzles_of(recipe)
    if data is not None:
        decoder = checkpoints.load_model(where.checkpoint, settings.device).eval()
        named = settings.named.get(grids.name_of(data))
        puzzle = PuzzleModel(decoder, data, settings.votes, named, console)
        return Subject(where, decoder, puzzle, recipe, None, puzzle.generators, None)
    loaded = solver.load(path, settings.device)
    toolbox = tool_use.toolbox(loaded.tokenizer) if settings.tools else None
    model = CheckpointModel(loaded.model, loaded.tokenizer, toolbox=toolbox)
    return Subject(where, loaded.model, model, loaded.recipe, loaded, eval_tasks.GENERATORS, model.longest)


def record_of(path: Path) -> RunRecord | None:
    """The run's own logs; None for a checkpoint without a run, or one whose files cannot be read."""
    for folder in (path, path.absolute().parent.parent):
        if (folder / "recipe.yaml").is_file():
            try:
                return run_record.read(folder)
            except RunError:
                return None
    return None
