"""`uv run apps/ablate`: variants of one model, trained alike over several seeds, and whether they differ."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from apps.ablate import baseline, cell, comparison, forest, schedule
from apps.ablate.schedule import Place, Task
from apps.common import command_help, command_line, files, precision, processes, variants
from apps.common.command_line import Arguments, Grammar, Option
from apps.common.console import Console
from apps.common.data import prepare
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.variants import PLAIN

STOPPED = 3  # exit status where someone asked to stop; the finished cells are kept
MOST_JOBS = 4  # that are started unasked: each holds about a gigabyte
SUMMARY = (
    "Train every variant of a table with every seed for the same number of tokens, one cell of the experiment each, and "
    "compare them with plain. Finished cells are kept and not trained again: start it again to go on, or with more "
    "variants or seeds. A dotted key changes the base of all variants."
)
OPTIONS = {
    "variants": Option("table of variants (default: apps/ablate/blocks.yaml)", "FILE"),
    "only": Option("train these variants (default: all); plain is always among them", "NAME,NAME"),
    "seeds": Option("of initial weights and order of the data (default: 0,1,2)", "N,N"),
    "steps": Option("optimizer steps of a cell (default: the table's)", "N"),
    "out": Option("folder that keeps one file a cell (default: runs/ablate/TABLE)", "DIR"),
    "jobs": Option(f"cells trained at once (default: cores / threads, at most {MOST_JOBS}; 1 on a GPU)", "N"),
    "threads": Option("CPU threads of a cell (default: 1)", "N"),
    "device": command_line.DEVICE,
    "table": Option("train nothing: print the table of the cells there are, as Markdown"),
    "plot": Option("with --table: draw the differences and their intervals as well (PNG)", "FILE"),
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("every block, three seeds", "uv run apps/ablate"),
    ("two of them, for longer", "uv run apps/ablate --only qk_norm,window --steps 1000 --out runs/ablate/long"),
    ("more seeds later: finished cells stay", "uv run apps/ablate --only qk_norm --seeds 0,1,2,3,4"),
    ("what is known so far", "uv run apps/ablate --table --plot blocks.png"),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, dotted=True))
    if "help" in arguments.options:
        command_help.print_app_help("ablate", SUMMARY, "", OPTIONS, EXAMPLES)
        return 0
    path = arguments.path("variants") or variants.BLOCKS
    out = arguments.path("out") or Path("runs/ablate") / path.stem
    console = Console(json="json" in arguments.options)
    return (_show if "table" in arguments.options else _train)(arguments, path, out, console)


def _show(arguments: Arguments, path: Path, out: Path, console: Console) -> int:
    """Print the table of the cells in `out`."""
    shows = ("table", "plot", "out", "variants", "json")
    unused = [
        *(name for name in arguments.options if name not in shows),
        *(each.dotted for each in arguments.overrides),
    ]
    if unused:
        raise BadRequest(f"--table shows the cells there are; leave out --{' and --'.join(unused)}")
    found = comparison.of(out, list(variants.read(path).variants))
    console.say(comparison.markdown(found))
    picture = arguments.path("plot")
    if picture is not None:
        _draw(found, picture)
    bound = found.baseline.val_bpb
    console.result({"bigram_bpb": bound, "rows": [row.to_dict(bound) for row in found.rows]})
    return 0


def _draw(found: comparison.Comparison, picture: Path) -> None:
    try:
        forest.draw(found, picture)
    except OSError as error:
        raise BadRequest(f"--plot {picture}: cannot be written ({error.strerror})") from None


def _train(arguments: Arguments, path: Path, out: Path, console: Console) -> int:
    """Train the cells that `out` does not have."""
    if "plot" in arguments.options:
        raise BadRequest("--plot draws the cells there are; give it with --table")
    steps = [Override(("train", "steps"), arguments.whole("steps", 1))] if "steps" in arguments.options else []
    only = arguments.options.get("only")
    changes = [*arguments.overrides, *steps]
    arms = variants.arms(path, "train", only if isinstance(only, str) else None, changes)
    seeds = _seeds(arguments.text("seeds", "0,1,2"))
    device = processes.device_type(arguments.text("device", "auto"), 1)
    threads = arguments.whole("threads", 1)
    jobs = arguments.whole("jobs", _jobs(device, threads))
    bits = precision.resolve(arms[PLAIN].recipe.train.precision, torch.device(device))
    # seed by seed, so that a table of all variants is there early
    tasks = [Task(arm, seed, cell.recipe_of(arm, seed, bits)) for seed in seeds for arm in arms.values()]
    lock = _claim(out)
    try:
        schedule.remove_leftovers(out)
        prepared = prepare(tasks[0].recipe, console)
        data = prepared.manifest["sha256"]
        missing = [task for task in tasks if not _is_finished(out, task, data)]
        bound = baseline.of(out, tasks[0].recipe, prepared)
        console.say(
            f"{len(tasks)} cell{'s' * (len(tasks) > 1)} ({', '.join(arms)}; seed {', '.join(map(str, seeds))}): "
            f"{len(tasks) - len(missing)} are there, "
            f"{len(missing)} to train, {jobs} at a time with {threads} thread{'s' * (threads > 1)} each; "
            f"the bigram model has {bound.val_bpb:.4f} bits per byte"
        )
        outcome = schedule.train(missing, Place(out, data, jobs, threads, device), console)
    finally:
        lock.release()
    for name, reason in outcome.failed.items():
        console.warn(f"{name} failed and has no file: {reason}")
    if outcome.stopped:
        console.say(f"stopped ({outcome.stopped}); finished cells are kept, the same command goes on")
    console.say(f"results: {out}\nnext: uv run apps/ablate --table --out {out}")
    there = len(tasks) - len(missing) + outcome.trained
    status = "stopped" if outcome.stopped else "failed" if outcome.failed else "done"
    console.result(
        {"cells": len(tasks), "finished": there, "failed": outcome.failed, "out": str(out), "status": status}
    )
    return {"stopped": STOPPED, "failed": 1, "done": 0}[status]


def _is_finished(out: Path, task: Task, data: str) -> bool:
    """Whether the cell's file is there. Raises RunError where it is damaged or of another run."""
    path = cell.path_of(out, task.arm.name, task.seed)
    if not path.exists():
        return False
    found = cell.read(path)
    cell.require_same(
        out, found, cell.recorded(task.recipe), data, "give another --out, or remove the file to train the cell again"
    )
    return True


def _claim(out: Path) -> files.Lock:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return files.Lock(out)
    except OSError as error:
        raise BadRequest(f"{out}: cannot hold cells ({error.strerror}); choose another folder with --out") from None


def _seeds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    found = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 10]
    if len(found) < len(words) or len(set(found)) < len(found):
        raise BadRequest(f"--seeds: {text!r} is not a list of different whole numbers below a billion, such as 0,1,2")
    return found


def _jobs(device: str, threads: int) -> int:
    return max(1, min(MOST_JOBS, (os.cpu_count() or 1) // threads)) if device == "cpu" else 1


if __name__ == "__main__":
    command_line.main(run)
