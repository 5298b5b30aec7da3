"""A trained puzzle model, from its run or a checkpoint of it, with the puzzles that its recipe names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from apps.common import checkpoints, puzzles, recipes, recursion, run_record
from apps.common.command_line import Arguments
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.puzzle_config import PuzzleData
from apps.common.puzzles import Side
from apps.common.recipe import Recipe
from tinycore import Decoder
from tinydata.puzzles import Boards


@dataclass(frozen=True)
class Trained:
    """The model in evaluation mode, on its device; `checkpoint` it is from, `recipe` it was trained by."""

    model: Decoder
    recipe: Recipe
    checkpoint: Path

    @property
    def data(self) -> PuzzleData:
        """The recipe's puzzles."""
        data = self.recipe.data
        assert isinstance(data, PuzzleData)
        return data

    def boards(self, side: Side, console: Console) -> Boards:
        """The recipe's puzzles of one side."""
        return puzzles.boards(self.data, side, console)


def load(arguments: Arguments, device: str) -> Trained:
    """What the one word of `arguments` names, at the recursion they ask for. Raises one-line errors."""
    if len(arguments.words) != 1:
        raise BadRequest("give one run or checkpoint of a puzzle model, such as runs/trm-sudoku-4x4")
    checkpoint = run_record.checkpoint_of(Path(arguments.words[0]))
    progress, _ = checkpoints.read_progress(checkpoint)
    recipe = recipes.from_dict(progress.recipe)
    if not isinstance(recipe.data, PuzzleData):
        raise BadRequest(f"{checkpoint}: was trained on text; talk to it with uv run apps/chat")
    model = recursion.at(checkpoints.load_model(checkpoint, device), arguments.overrides)
    return Trained(model.eval(), recipe, checkpoint)
