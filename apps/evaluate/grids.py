"""Models that answer puzzles in place, as tinyeval's `GridModel`: the boards of their recipe as items, answers by cells.

The kind and size of the puzzles are the recipe's, which are the only ones that the model can read; the items are of its test
side, made by another seed than the recipe's where `--seed` asks for it. An item's answer are the codes of the cells that are
asked, in order. With votes, copies of each puzzle under random symmetries are answered, too, and what most of them say counts;
ARC allows two attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from apps.common import files, puzzles, recipes
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.puzzle_config import ArcData, GeneratedPuzzles, MazeData, PuzzleData, SudokuData
from apps.common.recipe import Recipe
from apps.puzzle.scoring import elected
from tinycore import Decoder
from tinydata.batch import NOTHING_ASKED
from tinydata.puzzles import Boards, PuzzleError
from tinyeval import Item, Task, Unavailable
from tinyeval.tasks import load

TASKS: Mapping[type[PuzzleData], str] = {SudokuData: "sudoku", MazeData: "maze", ArcData: "arc_agi"}
AT_ONCE = 64  # boards


def recipe_of(checkpoint: Path) -> Recipe | None:
    """The recipe that a checkpoint was trained by; None where it was not trained here."""
    path = checkpoint / "trainer.json"
    return recipes.from_dict(files.read_json(path).get("recipe", {})) if path.is_file() else None


def puzzles_of(recipe: Recipe | None) -> PuzzleData | None:
    """The puzzles of a recipe whose model answers in place; None for one of texts."""
    return recipe.data if recipe is not None and isinstance(recipe.data, PuzzleData) else None


def name_of(data: PuzzleData) -> str:
    """The task of a recipe's puzzles."""
    return TASKS[type(data)]


def require_puzzle(task: Task, data: PuzzleData, checkpoint: Path) -> None:
    """Raises BadRequest for a task that a model of these puzzles cannot be asked."""
    if task.name != name_of(data):
        raise BadRequest(f"{task.name}: {checkpoint} answers puzzles in place; the task for it is {name_of(data)}")


class PuzzleModel:
    """See the module. votes: copies that are answered for each puzzle, itself included."""

    def __init__(
        self,
        model: Decoder,
        data: PuzzleData,
        votes: int = 1,
        named: Path | None = None,
        console: Console | None = None,
    ) -> None:
        self.model, self.data, self.votes, self.named = model.eval(), data, votes, named
        self.console = Console(json=True) if console is None else console
        self._boards: dict[str, tuple[Boards, int]] = {}

    @property
    def generators(self) -> dict[str, Callable[..., Iterator[Item]]]:
        """That of its task."""
        return {name_of(self.data): self.items}

    def items(self, *, seed: int, items: int) -> Iterator[Item]:
        """At most `items` puzzles of the test side. Raises Unavailable where their file is not there."""
        data = self.data
        if isinstance(data, GeneratedPuzzles):
            data = replace(data, held_out=items, seed=data.seed + seed)
        elif isinstance(data, ArcData):
            path = Path(data.path) if self.named is None else self.named
            if not path.exists():
                raise Unavailable(
                    f"task arc_agi: {path}, the tasks that the model was trained on, is not there; name the file: "
                    "--files arc_agi=PATH"
                )
            data = replace(data, path=str(path))
        try:
            boards = puzzles.boards(data, "test", self.console)
        except PuzzleError as error:
            raise Unavailable(f"task {name_of(data)}: {error}") from None
        for index in range(min(items, len(boards))):
            given, answers = (part[boards.slots :] for part in boards.row(index))
            if (answers == NOTHING_ASKED).all():
                continue  # an ARC test whose output is kept secret
            name = f"{name_of(data)}-{seed}-{index}"
            self._boards[name] = boards, index
            yield Item(name, boards.show(given), answer=_words(answers, answers))

    @torch.no_grad()
    def solve(self, items: Sequence[Item]) -> list[list[str]]:
        """See `GridModel`."""
        found: list[list[str]] = []
        for first in range(0, len(items), AT_ONCE):
            part = items[first : first + AT_ONCE]
            boards = self._boards[part[0].id][0]
            indices = [self._boards[item.id][1] for item in part]
            rows = [boards.row(index) for index in indices]
            device = next(self.model.parameters()).device
            inputs = torch.from_numpy(np.stack([given for given, _ in rows])).to(device)
            own = self.model(inputs).logits.argmax(-1)[:, boards.slots :].cpu().numpy()
            attempts = [[cells] for cells in own]
            if self.votes > 1:
                attempts = elected(self.model, boards, indices, own, self.votes, AT_ONCE)
            found += [
                [_words(cells, answers[boards.slots :]) for cells in tries]
                for tries, (_, answers) in zip(attempts, rows, strict=True)
            ]
        return found

    def rows(self, tokens: int) -> torch.Tensor:
        """(R, T) boards with at least so many positions together, to look at activations."""
        if not self._boards:  # all results were there already
            list(self.items(seed=0, items=AT_ONCE))
        boards, _ = next(iter(self._boards.values()))
        rows = [boards.row(index % len(boards))[0] for index in range(max(1, tokens // boards.cells))]
        return torch.from_numpy(np.stack(rows))


def task_of(data: PuzzleData) -> Task:
    """The task of a recipe's puzzles."""
    return load(name_of(data))


def _words(cells: np.ndarray, answers: np.ndarray) -> str:
    return " ".join(map(str, cells[answers != NOTHING_ASKED].tolist()))
