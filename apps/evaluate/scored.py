"""`uv run apps/evaluate RUN [--tasks ...]`: tinyeval's tasks asked of one run, or of several to compare them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.common import eval_tasks, files
from apps.common.command_line import Arguments
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.evaluate import auto, comparing, grids, measures, pages, pictures, settings, spectra, stored, subject
from apps.evaluate.auto import Chosen
from apps.evaluate.pages import Evaluated
from apps.evaluate.progress import Progress
from apps.evaluate.settings import Settings
from apps.evaluate.subject import Subject
from tinydata import Tokenizer
from tinyeval import Result, Results, Task, evaluate

AT_ONCE = 32  # items that the model is given together


def run(arguments: Arguments, console: Console) -> int:
    """Evaluate what is named, compare where that is asked for; the exit status. Raises BadRequest."""
    comparison = "compare" in arguments.options
    paths = [Path(word) for word in arguments.words]
    if comparison and len(paths) < 2:
        raise BadRequest("--compare: give at least two runs, the first of which the others are compared with")
    if not comparison and len(paths) != 1:
        raise BadRequest("give one run or checkpoint, such as runs/demo, or several and --compare")
    wanted = settings.read(arguments)
    places = [stored.place(path) for path in paths]
    for where in places:  # all are looked at before the first takes minutes
        check(where, wanted)
    plan: list[Chosen] | None = None
    found: list[Evaluated] = []
    for path, where in zip(paths, places, strict=True):
        console.head(str(path), where.checkpoint.name)
        done, plan = _of_run(path, where, wanted, plan, console)
        console.say(pages.shown(done))
        for suite in wanted.suites:
            console.say(pages.suite(suite, done))
        if done.measures is not None and done.measures.cost is not None:
            console.say(pages.cost(done.measures.cost))
        console.say(f"report: {where.directory / 'report.md'}")
        found.append(done)
    values: dict[str, Any] = {
        "runs": [
            {
                "run": str(path),
                "checkpoint": str(one.where.checkpoint),
                "sha256": one.where.sha256,
                "tasks": pages.rows(one),
                **({} if one.measures is None else one.measures.to_dict()),
            }
            for path, one in zip(paths, found, strict=True)
        ]
    }
    if comparison:
        metric = arguments.text("metric", "") or None
        values["comparison"] = comparing.run(found, metric, console)
    if (out := arguments.path("out")) is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(out, values)
        console.say(f"results: {out}")
    console.result(values)
    return 0


def check(where: stored.Place, wanted: Settings) -> None:
    """Raises BadRequest where results cannot be written, or where the model cannot be asked what was named."""
    try:
        where.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest(f"{where.directory}: cannot be made ({error.strerror}); results are stored there") from None
    recipe = grids.recipe_of(where.checkpoint)
    data = grids.puzzles_of(recipe)
    tasks = [] if wanted.automatic else [eval_tasks.load(name) for name in wanted.names]
    if data is not None:
        for task in (*tasks, *(task for suite in wanted.suites for task in suite.tasks)):
            grids.require_puzzle(task, data, where.checkpoint)
        return
    for task in tasks:
        if task.scoring == "grid":
            raise BadRequest(f"{task.name}: {where.checkpoint} is no model of puzzles; uv run apps/puzzle trains one")
    if wanted.votes > 1:
        raise BadRequest(f"--votes: {where.checkpoint} is no model of puzzles, whose copies could vote")
    tools = [task for task in tasks if task.name in eval_tasks.TOOL_TASKS]
    if not tools or not (where.checkpoint / "tokenizer.json").is_file():
        return
    tokenizer = Tokenizer.load(where.checkpoint)
    for task in tools:
        eval_tasks.require_tools(task, tokenizer, recipe, where.checkpoint)


def _of_run(
    path: Path, where: stored.Place, wanted: Settings, plan: list[Chosen] | None, console: Console
) -> tuple[Evaluated, list[Chosen]]:
    """The results of one run, and what was asked of it; plan: what others were asked, so that they compare."""
    asked_of = subject.load(path, where, wanted, console)
    automatic = plan is None and wanted.automatic
    if plan is not None:
        tasks = [one.task for one in plan]
    elif automatic:
        tasks = asked_of.candidates(wanted.named)
        console.say(f"measuring speed; {len(tasks)} tasks are given {auto.SECONDS:.0f} s together")
    else:
        tasks = [eval_tasks.load(name) for name in wanted.names]
        tasks += [task for suite in wanted.suites for task in suite.tasks]
    progress = Progress(console, len(tasks), AT_ONCE)
    found: dict[str, Result] = {}
    before: set[str] = set()
    asked: list[Chosen] = []
    began = time.monotonic()
    for number, task in enumerate(tasks):
        limit = wanted.limit if plan is None else plan[number].limit
        share = auto.share_of(time.monotonic() - began, len(tasks) - number) if automatic else None
        result, one, stored_before = ask(asked_of, task, limit, wanted, progress, share)
        found[task.name] = result
        asked.append(one)
        before |= {task.name} if stored_before else set()
    measured = measures.of(asked_of) if any(result.skipped is None for result in found.values()) else None
    done = Evaluated(where, Results(found), frozenset(before), measured, subject.record_of(path), wanted.suites)
    _write(done, asked)
    return done, asked


def ask(
    asked_of: Subject, task: Task, limit: int | None, wanted: Settings, progress: Progress, share: float | None = None
) -> tuple[Result, Chosen, bool]:
    """The result of one task, as it was asked, and whether it was there already. share: seconds that it may take, for which the
    limit is found by trial; None: all items, or `limit`."""
    where = asked_of.where
    progress.begin(task.name)
    file = wanted.named.get(task.name)
    key = stored.asked(where, task, limit, wanted.seed, wanted.tools, file, wanted.votes)
    there = stored.find(where, key, any_limit=share is not None and wanted.limit is None)
    if there is not None:
        progress.end(f"done before, {there.score}")
        return there, Chosen(task, there.limit), True
    one = Chosen(task, limit, eval_tasks.unavailable(task))
    if share is not None:
        one = auto.choose(asked_of.model, task, wanted.seed, wanted.named, share, asked_of.context, asked_of.generators)
        smallest = [value for value in (one.limit, wanted.limit) if value is not None]
        one = replace(one, limit=min(smallest, default=None))
        key["limit"] = one.limit
    result = _result(asked_of, one, wanted, progress)
    if result.skipped is None:
        stored.keep(where, key, result)
    progress.end(str(result.score) if result.skipped is None else "not measured, see below")
    return result, one, False


def _result(asked_of: Subject, one: Chosen, wanted: Settings, progress: Progress) -> Result:
    """`one` asked of the model; a task that is not asked is a result that says why."""
    task = one.task
    if one.reason is not None:
        return Result(
            task=task.name,
            version=task.version,
            identity=task.identity,
            model=asked_of.where.name,
            metric=task.metric,
            higher_is_better=task.higher_is_better,
            n=0,
            seed=wanted.seed,
            skipped=one.reason,
            tokenizer_id=asked_of.tokenizer_id,
        )
    return evaluate(
        asked_of.model,
        task,
        limit=one.limit,
        seed=wanted.seed,
        name=asked_of.where.name,
        files=wanted.named if task.scoring != "grid" else None,
        generators=asked_of.generators,
        runner=eval_tasks.runner(),
        on_item=lambda record, done, total: progress.advance(done, total),
        batch=AT_ONCE,
    )[task.name]


def _write(done: Evaluated, asked: Sequence[Chosen]) -> None:
    """report.md, its pictures and results.json beside the results of the tasks."""
    directory = done.where.directory
    directory.mkdir(parents=True, exist_ok=True)
    files.write_text(directory / "results.json", done.results.to_json() + "\n")
    name, results = done.where.name, done.results
    blocks = () if done.measures is None else done.measures.blocks
    drawn = {
        "tasks.png": lambda path: pictures.tasks(path, {name: results}),
        "needle.png": lambda path: pictures.needle(path, {name: results}),
        "curves.png": lambda path: pictures.curves(path, {name: done.record}),
        "spectra.png": lambda path: spectra.draw(path, {name: blocks}),
    }
    made = [file for file, draw in drawn.items() if draw(directory / file)]
    tasks = {one.task.name: one.task for one in asked}
    files.write_text(directory / "report.md", pages.report(done, tasks, made))
