"""`uv run apps/evaluate RUN --tasks ...`: tinyeval's tasks asked of one run, or of several to compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.common import eval_tasks, files, processes, solver, tool_use
from apps.common.command_line import Arguments
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.eval_model import CheckpointModel
from apps.evaluate import auto, comparing, pages, pictures, stored
from apps.evaluate.auto import Chosen
from apps.evaluate.pages import Evaluated
from apps.evaluate.progress import Progress
from tinydata import Tokenizer
from tinyeval import Result, Results, evaluate

AUTO = "auto"
AT_ONCE = 32  # items that the model is given together
ELSEWHERE = ("problems", "kinds", "forms", "steps", "rounds", "verifier", "max-tokens")  # options of exercises


@dataclass(frozen=True)
class Settings:
    """What the command line asks of each run. names: of tasks; AUTO alone: those that make sense."""

    names: tuple[str, ...]
    limit: int | None
    seed: int
    tools: bool
    named: Mapping[str, Path]
    device: str


def run(arguments: Arguments, console: Console) -> int:
    """Evaluate what is named, compare where that is asked for; the exit status. Raises BadRequest."""
    comparison = "compare" in arguments.options
    paths = [Path(word) for word in arguments.words]
    if comparison and len(paths) < 2:
        raise BadRequest("--compare: give at least two runs, the first of which the others are compared with")
    if not comparison and len(paths) != 1:
        raise BadRequest("give one run or checkpoint, such as runs/demo, or several and --compare")
    settings = read(arguments)
    places = [stored.place(path) for path in paths]
    for where in places:  # all are looked at before the first takes minutes
        _check(where, settings)
    plan: list[Chosen] | None = None
    found: list[Evaluated] = []
    for path, where in zip(paths, places, strict=True):
        console.head(str(path), where.checkpoint.name)
        done, plan = _of_run(path, where, settings, plan, console)
        console.say(pages.shown(done))
        console.say(f"report: {where.directory / 'report.md'}")
        found.append(done)
    values: dict[str, Any] = {
        "runs": [
            {
                "run": str(path),
                "checkpoint": str(one.where.checkpoint),
                "sha256": one.where.sha256,
                "tasks": pages.rows(one),
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


def read(arguments: Arguments) -> Settings:
    """The settings. Raises BadRequest for options of exercises, unknown tasks and files of no task."""
    odd = next((name for name in ELSEWHERE if name in arguments.options), None)
    if odd is not None:
        raise BadRequest(f"--{odd} is for exercises, which are asked without --tasks and --compare; leave one out")
    text = arguments.text("tasks", AUTO)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or (AUTO in names and len(names) > 1):
        raise BadRequest(f"--tasks: {text!r}: give tasks such as arithmetic,needle, or {AUTO} alone")
    named: dict[str, Path] = {}
    for part in filter(None, arguments.text("files", "").split(",")):
        name, equals, path = part.partition("=")
        if not equals or not name or not path:
            raise BadRequest(f"--files: {part!r} is not of the form lambada=path")
        named[name] = Path(path)
    tasks = [eval_tasks.load(name) for name in (*(names if names != (AUTO,) else ()), *named)]
    if names != (AUTO,):
        asked = {task.name for task in tasks[: len(names)]}
        if stray := next((name for name in named if name not in asked), None):
            raise BadRequest(f"--files: {stray} is not among --tasks {text}")
    return Settings(
        names,
        arguments.whole("limit", 1) if "limit" in arguments.options else None,
        arguments.whole("seed", 0, least=0),
        "no-tools" not in arguments.options,
        named,
        processes.device_type(arguments.text("device", "auto"), 1),
    )


def _check(where: stored.Place, settings: Settings) -> None:
    """Raises BadRequest where results cannot be written, or where the model cannot be asked what was named."""
    try:
        where.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest(f"{where.directory}: cannot be made ({error.strerror}); results are stored there") from None
    tools = [name for name in settings.names if name in eval_tasks.TOOL_TASKS]
    if not tools or not (where.checkpoint / "tokenizer.json").is_file():
        return
    tokenizer = Tokenizer.load(where.checkpoint)
    for name in tools:
        eval_tasks.require_tags(eval_tasks.load(name), tokenizer, where.checkpoint)


def _of_run(
    path: Path, where: stored.Place, settings: Settings, plan: list[Chosen] | None, console: Console
) -> tuple[Evaluated, list[Chosen]]:
    """The results of one run, and what was asked of it; plan: what others were asked, so that they compare."""
    loaded = solver.load(path, settings.device)
    toolbox = tool_use.toolbox(loaded.tokenizer) if settings.tools else None
    model = CheckpointModel(loaded.model, loaded.tokenizer, toolbox=toolbox)
    automatic = plan is None and settings.names == (AUTO,)
    if plan is not None:
        tasks = [one.task for one in plan]
    elif automatic:
        tasks = auto.candidates(loaded, loaded.recipe, settings.named)
        console.say(f"measuring speed; {len(tasks)} tasks are given {auto.SECONDS:.0f} s together")
    else:
        tasks = [eval_tasks.load(name) for name in settings.names]
    progress = Progress(console, len(tasks), AT_ONCE)
    found: dict[str, Result] = {}
    before: set[str] = set()
    asked: list[Chosen] = []
    for number, task in enumerate(tasks):
        progress.begin(task.name)
        limit = settings.limit if plan is None else plan[number].limit
        file = settings.named.get(task.name)
        wanted = stored.asked(where, task, limit, settings.seed, settings.tools, file)
        there = stored.find(where, wanted, any_limit=automatic and settings.limit is None)
        if there is not None:
            found[task.name] = there
            before.add(task.name)
            asked.append(Chosen(task, there.limit))
            progress.end(f"done before, {there.score}")
            continue
        one = Chosen(task, limit, eval_tasks.unavailable(task))
        if automatic:
            share = auto.SECONDS / len(tasks)
            one = auto.choose(model, task, settings.seed, settings.named, share, model.longest)
            smallest = [value for value in (one.limit, settings.limit) if value is not None]
            one = replace(one, limit=min(smallest, default=None))
            wanted["limit"] = one.limit
        result = _result(model, one, settings, where.name, progress)
        if result.skipped is None:
            stored.keep(where, wanted, result)
        found[task.name] = result
        asked.append(one)
        progress.end(str(result.score) if result.skipped is None else f"not measured: {result.skipped}")
    done = Evaluated(where, Results(found), frozenset(before))
    _write(done, asked)
    return done, asked


def _result(model: CheckpointModel, one: Chosen, settings: Settings, name: str, progress: Progress) -> Result:
    """`one` asked of the model; a task that is not asked is a result that says why."""
    task = one.task
    if one.reason is not None:
        return Result(
            task=task.name,
            version=task.version,
            identity=task.identity,
            model=name,
            metric=task.metric,
            higher_is_better=task.higher_is_better,
            n=0,
            seed=settings.seed,
            skipped=one.reason,
            tokenizer_id=model.tokenizer_id,
        )
    return evaluate(
        model,
        task,
        limit=one.limit,
        seed=settings.seed,
        name=name,
        files=settings.named,
        generators=eval_tasks.GENERATORS,
        runner=eval_tasks.runner(),
        on_item=lambda record, done, total: progress.advance(done, total),
        batch=AT_ONCE,
    )[task.name]


def _write(done: Evaluated, asked: Sequence[Chosen]) -> None:
    """report.md, its pictures and results.json beside the results of the tasks."""
    directory = done.where.directory
    directory.mkdir(parents=True, exist_ok=True)
    files.write_text(directory / "results.json", done.results.to_json() + "\n")
    runs = {done.where.name: done.results}
    drawn = [("tasks.png", pictures.tasks), ("needle.png", pictures.needle)]
    made = [name for name, draw in drawn if draw(directory / name, runs)]
    tasks = {one.task.name: one.task for one in asked}
    files.write_text(directory / "report.md", pages.report(done, tasks, made))
