"""`uv run apps/evaluate RUN --harness arc_easy,blimp`: our model in lm-eval's own evaluator, on its tasks and by its rules.

Names are lm-eval's tasks and groups; a name that ends in .yaml is a task's own file, whose data may be local. Tasks of lm-eval
read their data from the Hugging Face hub: offline that is said in one line, unless HF_HUB_OFFLINE=1 says that it is cached.
What comes out is lm-eval's, and is written to RUN/evaluation/harness.json as it is. A task's file of lm-eval's is a program: it
may call Python functions and its templates are not fenced in, so a stranger's is not to be named; tinyeval's own YAML is data.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from apps.common import files
from apps.common.command_line import Arguments
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.eval_model import CheckpointModel
from apps.common.markdown import table
from apps.evaluate import settings, stored, subject
from apps.evaluate.grids import PuzzleModel
from tinyeval import Unavailable, harness
from tinyeval.sources import hub_reachable
from tinyeval.task import nearest

UNFIT = ("tasks", "compare", "metric", "files", "capabilities", "seed", "votes")
FILE = "harness.json"
BOOTSTRAPS = 1000  # for the standard errors of what is no mean


def run(arguments: Arguments, console: Console) -> int:
    """Evaluate one run; the exit status. Raises BadRequest."""
    if odd := next((name for name in UNFIT if name in arguments.options), None):
        raise BadRequest(f"--{odd}: --harness asks tasks of lm-eval by its rules; leave one out")
    if len(arguments.words) != 1:
        raise BadRequest("give one run or checkpoint, such as runs/demo")
    names = [name.strip() for name in arguments.text("harness", "").split(",") if name.strip()]
    if not names:
        raise BadRequest("--harness: name tasks of lm-eval, such as arc_easy,blimp")
    path = Path(arguments.words[0])
    wanted, where = settings.read(arguments), stored.place(path)
    asked_of = subject.load(path, where, wanted, console)
    if isinstance(asked_of.model, PuzzleModel):
        raise BadRequest(f"--harness: {where.checkpoint} answers puzzles in place, which lm-eval does not ask for")
    found = evaluate(asked_of.model, names, wanted.limit)
    rows = shown(found)
    console.say(table(["task", "metric", "n", "value", "standard error"], rows))
    values = {
        "run": str(path),
        "checkpoint": str(where.checkpoint),
        "sha256": where.sha256,
        "lm_eval": metadata.version("lm_eval"),
        "limit": wanted.limit,
        "results": found["results"],
        "n": found["n-samples"],
    }
    where.directory.mkdir(parents=True, exist_ok=True)
    out = arguments.path("out") or where.directory / FILE
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(out, values)
    console.say(f"results: {out}")
    console.result(values)
    return 0


def evaluate(model: CheckpointModel, names: Sequence[str], limit: int | None) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` says of tasks, samples left out. Raises BadRequest, one line."""
    try:
        adapted = harness.to_lm_eval(model)
    except Unavailable as error:
        raise BadRequest(f"--harness: {error}") from None
    import lm_eval

    own = [Path(name) for name in names if name.endswith((".yaml", ".yml"))]
    if missing := next((file for file in own if not file.is_file()), None):
        raise BadRequest(f"--harness: {missing}: there is no such file")
    theirs = len(own) < len(names)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(tuple(str(file.parent) for file in own), theirs)
    known = {*manager.all_tasks}
    asked = [_named(name) if name.endswith((".yaml", ".yml")) else name for name in names]
    if unknown := next((name for name in asked if name not in known), None):
        raise BadRequest(f"--harness: lm-eval has no task {unknown!r}; {nearest(unknown, sorted(known))[:200]}")
    if theirs and not hub_reachable():
        first = next(name for name in names if not name.endswith((".yaml", ".yml")))
        raise BadRequest(
            f"--harness: the data of {first} is on the Hugging Face hub, which cannot be reached; set HF_HUB_OFFLINE=1 for "
            "what is cached, or ask the same task with a file: --tasks NAME --files NAME=PATH"
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = lm_eval.simple_evaluate(
                model=adapted,
                tasks=asked,
                limit=limit,
                task_manager=manager,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=False,
            )
    except Exception as error:  # the library passes on whatever its tasks, their data and their templates raise
        while error.__cause__ is not None:
            error = error.__cause__
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadRequest(f"--harness: lm-eval cannot ask {', '.join(asked)}: {reason}") from None
    assert found is not None  # of the only process
    return found


@functools.cache
def _manager(folders: tuple[str, ...], theirs: bool) -> Any:
    """lm-eval's index of tasks in these folders and, which takes seconds, of its own."""
    from lm_eval.tasks import TaskManager

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return TaskManager(include_path=list(folders) or None, include_defaults=theirs)


def shown(found: dict[str, Any]) -> list[list[str]]:
    """A row for each number of each task."""
    rows = []
    for task, scores in found["results"].items():
        count = found["n-samples"].get(task, {}).get("effective", "")
        for name, value in scores.items():
            metric, _, chosen = name.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not chosen:
                continue
            error = scores.get(f"{metric}_stderr,{chosen}")
            label = metric if chosen == "none" else f"{metric} ({chosen})"
            shown_error = f"{error:.4f}" if isinstance(error, int | float) else ""
            rows.append([task, label, str(count), f"{value:.4f}", shown_error])
    return rows


def _named(path: str) -> str:
    """The name of the task in a file of lm-eval's. Raises BadRequest for a file that names none."""
    # read as text: its own loader knows tags such as !function, and it is that loader which will read the file
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[:1000]:
        key, colon, value = line.partition(":")
        if key == "task" and colon and value.strip():
            return value.split("#")[0].strip().strip("\"'")
    raise BadRequest(f"--harness: {path}: has no line 'task: NAME', so it is no task of lm-eval")
