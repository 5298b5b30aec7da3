"""`--tasks auto`: the tasks that make sense for a model, and of each as many items as this machine manages in the time.

The time that a task's items take follows from a trial of a few of them, so nothing is assumed about the machine; what a task
leaves of its share goes to those after it, and what it takes beyond comes from them. Tasks whose data is elsewhere (the hub, a
file) are asked only where a file is named. Limits are round numbers: they stand still although measured speeds do not, and what
is stored is taken as it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from apps.common import eval_tasks
from apps.common.problem_config import ChatData
from apps.common.recipe import Recipe
from apps.common.solver import Solver
from tinyeval import Item, LanguageModel, Task, Unavailable, evaluate
from tinyeval.model import GridModel
from tinyeval.sources import Generator, items_of

SECONDS = 100.0  # for all tasks together: with loading and trials this stays below three minutes
TRIALS = (2, 16)  # items: the second, which says what batches are worth, only where it takes little of the time
LIMITS = (20, 50, 100, 200, 400, 600, 1000)
BYTES_PER_TOKEN = 2  # at least so many of an English text


@dataclass(frozen=True)
class Chosen:
    """A task with its limit, or the reason why it is not asked."""

    task: Task
    limit: int | None = None
    reason: str | None = None


def share_of(spent: float, left: int) -> float:
    """Seconds that the next of `left` tasks may take after so many were spent."""
    return max(0.0, SECONDS - spent) / left


def candidates(solver: Solver, recipe: Recipe | None, named: Mapping[str, Path]) -> list[Task]:
    """The tasks that make sense: what the model was trained for, what any language model can be asked, and named files."""
    wanted = ["embedded_text", "grammar", "arithmetic", "needle", "word_problems", "logic_hops"]
    if solver.learned:
        forms = {form for form, weight in solver.data.forms.items() if weight > 0}
        tools = {name for name, (form, _) in eval_tasks.TOOL_TASKS.items() if form in forms}
        wanted = [name for name in wanted if name != "word_problems" or forms & {"hand", "once"}] + sorted(tools)
    if recipe is not None and isinstance(recipe.data, ChatData):
        wanted.append("instructions")
    elif not solver.learned:
        wanted.append("stories")
    wanted.append("mmlu_mini")  # the slowest: it has what the others left
    return [eval_tasks.load(name) for name in dict.fromkeys([*wanted, *named])]


def misfit(task: Task, items: list[Item], context: int) -> str | None:
    """Why a context of so many tokens is too short for a task's questions; None where it is not. Whole texts are read in
    windows."""
    if task.scoring == "perplexity":
        return None
    shortest = min(len(task.asked({"prompt": item.prompt, **item.fields}).encode()) for item in items)
    if shortest > context * BYTES_PER_TOKEN:
        return f"its shortest question has {shortest} bytes, more than fit into a context of {context} tokens"
    return None


def choose(
    model: LanguageModel | GridModel,
    task: Task,
    seed: int,
    named: Mapping[str, Path],
    share: float,
    context: int | None,
    generators: Mapping[str, Generator] = MappingProxyType(eval_tasks.GENERATORS),
) -> Chosen:
    """`task` with a limit for which it takes at most `share` seconds, found by a trial; or why not. context: None where all
    questions fit."""
    if (reason := eval_tasks.unavailable(task)) is not None:
        return Chosen(task, reason=reason)
    try:
        files = None if task.scoring == "grid" else named  # their generator reads what was named
        items = items_of(task, seed=seed, files=files, generators=generators)
    except Unavailable as error:
        return Chosen(task, reason=str(error))
    if context is not None and (reason := misfit(task, items, context)) is not None:
        return Chosen(task, reason=reason)
    each = 0.0
    for count in TRIALS:
        if each * count <= share / 2:
            each = seconds_each(model, task, items[:: max(1, len(items) // count)][:count])
    fitting = [limit for limit in LIMITS if limit * each <= share]
    if not fitting:
        return Chosen(
            task, reason=f"{LIMITS[0]} items would take {LIMITS[0] * each:.0f} s; --tasks {task.name} asks it"
        )
    return Chosen(task, None if fitting[-1] >= len(items) else fitting[-1])


def seconds_each(model: LanguageModel | GridModel, task: Task, items: list[Item]) -> float:
    """Seconds an item in a batch of a few; larger batches are faster, so this is no underestimate."""
    began = time.perf_counter()
    evaluate(model, task, items={task.name: items}, runner=eval_tasks.runner(), batch=len(items))
    return (time.perf_counter() - began) / len(items)
