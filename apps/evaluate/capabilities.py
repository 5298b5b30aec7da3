"""`uv run apps/evaluate RUN... --capabilities`: the cells of tinyeval's table of capabilities that these runs can fill.

A run's column is the scale that its parameters belong to, or one of its own. Which rows it is asked follows from what it
learned:

    standard      every language model; an in-place model without recursion, its own puzzles
    scratchpad    models whose recipe taught solutions by hand
    tools         models whose recipe taught calls of the calculator
    recursion     models with recursive depth

A model that learned exercises knows the form of the questions; others are shown two examples. What a run is not asked is said.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apps.common import eval_tasks, files
from apps.common.command_line import Arguments
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.problem_config import ExerciseData
from apps.common.recipe import Recipe
from apps.evaluate import grids, settings, stored, subject
from apps.evaluate.grids import PuzzleModel
from apps.evaluate.progress import Progress
from apps.evaluate.scored import AT_ONCE, ask
from apps.evaluate.subject import Subject
from tinyeval import Task, capabilities
from tinyeval.capabilities import Measured, Row, Table
from tinyeval.task import with_dataset, without_examples

FILE = "capabilities"
UNFIT = ("tasks", "compare", "metric", "files", "no-tools")


def run(arguments: Arguments, console: Console) -> int:
    """Fill what can be filled, say the whole table; the exit status. Raises BadRequest."""
    if odd := next((name for name in UNFIT if name in arguments.options), None):
        raise BadRequest(f"--{odd}: --capabilities asks its own tests; leave one out")
    if not arguments.words:
        raise BadRequest("give one or more runs or checkpoints, such as runs/demo")
    wanted = settings.read(arguments)
    paths = [Path(word) for word in arguments.words]
    places = [stored.place(path) for path in paths]
    table = capabilities.load()
    found: dict[str, list[tuple[Row, Measured]]] = {}
    left_out: list[dict[str, str]] = []
    for path, where in zip(paths, places, strict=True):
        asked_of = subject.load(path, where, wanted, console)
        scale = table.scale(asked_of.parameters)
        console.head(str(path), f"{asked_of.parameters:,} parameters, column {scale}")
        rows = [(row, reason(row, asked_of)) for row in table.rows]
        progress = Progress(console, sum(why is None for _, why in rows), AT_ONCE)
        for row, why in rows:
            if why is None:
                result, _, _ = ask(asked_of, task_of(row, asked_of), wanted.limit, wanted, progress)
                why = result.skipped
                if why is None:
                    found.setdefault(scale, []).append((row, Measured(where.name, result)))
            if why is not None:
                left_out.append({"run": where.name, "cell": row.name, "reason": why})
    values = {
        "runs": [str(path) for path in paths],
        "cells": capabilities.to_rows(table, found),
        "not_asked": left_out,
    }
    page = shown(table, found, left_out)
    console.say(page)
    directory = places[0].directory
    directory.mkdir(parents=True, exist_ok=True)
    files.write_text(directory / f"{FILE}.md", f"# Capabilities by scale\n\n{page}\n")
    files.write_json(arguments.path("out") or directory / f"{FILE}.json", values)
    console.say(f"table: {directory / f'{FILE}.md'}")
    console.result(values)
    return 0


def reason(row: Row, asked_of: Subject) -> str | None:
    """Why a run is not asked a row; None where it is."""
    recurs, recipe = asked_of.decoder.config.depth.recurs, asked_of.recipe
    if isinstance(asked_of.model, PuzzleModel) and not row.in_place:
        return "answers puzzles in place, reads no text"
    if row.condition == "recursion" and not recurs:
        return "has no recursive depth"
    if row.condition == "standard" and row.in_place and recurs:
        return "has recursive depth, which cannot be left out"
    if row.condition == "tools" and "calculator" not in _learned(recipe):
        return "was not trained to use the calculator"
    if row.condition == "scratchpad" and "hand" not in _learned(recipe):
        return "was not trained to write thoughts"
    return None


def task_of(row: Row, asked_of: Subject) -> Task:
    """The test of a row, in the form that the run knows."""
    if isinstance(asked_of.model, PuzzleModel):
        return grids.task_of(asked_of.model.data)
    task = with_dataset(eval_tasks.load(row.task), **row.dataset) if row.dataset else eval_tasks.load(row.task)
    if asked_of.solver is not None and asked_of.solver.learned:
        task = without_examples(task)
    # a file of its own for each condition: the same task in two forms is two results
    return task if row.condition == "standard" and not row.dataset else replace(task, name=_name(row))


def shown(table: Table, found: dict[str, list[tuple[Row, Measured]]], left_out: list[dict[str, str]]) -> str:
    """The table, what it means, and what the runs were not asked."""
    blocks = [
        capabilities.to_markdown(table, found),
        f"pass, fail: the whole 95 % interval is on that side of the mark, of {table.items} items at the least; open: it "
        "is not, or there are fewer items. A claim is held to the mark of its word.",
    ]
    if left_out:
        lines: dict[tuple[str, str], list[str]] = {}
        for one in left_out:
            lines.setdefault((one["run"], one["reason"]), []).append(one["cell"])
        said = [f"- `{run}`: {'; '.join(cells)}: {why}" for (run, why), cells in lines.items()]
        blocks.append("Not asked:\n\n" + "\n".join(said))
    return "\n\n".join(blocks)


def _learned(recipe: Recipe | None) -> set[str]:
    """Forms of solutions that a recipe taught."""
    if recipe is None:
        return set()
    hand = {"hand"} if isinstance(recipe.data, ExerciseData) and recipe.data.forms.get("hand", 0) > 0 else set()
    return hand | eval_tasks.tool_forms(recipe)


def _name(row: Row) -> str:
    """Such as `steps-2-3-hand`."""
    parts = [row.task]
    for value in row.dataset.values():
        parts += map(str, value) if isinstance(value, list) else [str(value)]
    return "-".join(parts)
