"""From a recipe to its task: the data made ready, and one process's part in learning it."""

from __future__ import annotations

from apps.common import data, problems, puzzles, verdicts
from apps.common.console import Console
from apps.common.language_task import LanguageTask
from apps.common.problem_config import AnsweredData
from apps.common.problem_task import ProblemTask
from apps.common.processes import World
from apps.common.puzzle_config import PuzzleData
from apps.common.puzzle_task import PuzzleTask
from apps.common.recipe import Recipe
from apps.common.task import Task
from apps.common.verdict_config import VerdictData
from apps.common.verdict_task import VerdictTask

Prepared = data.Prepared | problems.PreparedProblems | puzzles.PreparedPuzzles | verdicts.PreparedVerdicts


def prepare(recipe: Recipe, console: Console) -> Prepared:
    """The data of `recipe`, made where it is not there yet. Raises one-line errors of what it is made from."""
    if isinstance(recipe.data, PuzzleData):
        return puzzles.prepare(recipe.data, console)
    if isinstance(recipe.data, AnsweredData):
        return problems.prepare(recipe.data, recipe.model.vocab_size, console)
    if isinstance(recipe.data, VerdictData):
        return verdicts.prepare(recipe.data, console)
    return data.prepare(recipe, console)


def task(recipe: Recipe, prepared: Prepared, world: World) -> Task:
    """One process's part in learning what was prepared for `recipe`."""
    if isinstance(prepared, puzzles.PreparedPuzzles):
        return PuzzleTask(recipe, prepared, world)
    if isinstance(prepared, problems.PreparedProblems):
        return ProblemTask(recipe, prepared, world)
    if isinstance(prepared, verdicts.PreparedVerdicts):
        return VerdictTask(recipe, prepared, world)
    return LanguageTask(recipe, prepared, world)
