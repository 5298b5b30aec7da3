"""`uv run apps/ablate`: variants of one model, trained alike over several seeds, and whether they differ."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from apps.ablate import baseline, cell, comparison, forest, law, matching, page, pareto, plan, schedule, search
from apps.ablate.estimate import Estimate
from apps.ablate.schedule import Entry, Later, Place
from apps.common import command_help, command_line, files, precision, processes, variants
from apps.common.command_line import Arguments, Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest, RunError
from apps.common.overrides import Override
from apps.common.variants import PLAIN, Arm, Table

STOPPED = 3  # exit status where someone, or --hours, asked to stop; the finished cells are kept
MOST_JOBS = 4  # that are started unasked: each holds about a gigabyte
SUMMARY = (
    "Train every variant of a table with every seed, equal in tokens or what the table says, one cell of the experiment each, "
    "and compare them with plain. Finished cells are kept and not trained again: start it again to go on, or with more "
    "variants or seeds. A dotted key changes the base of all variants."
)
OPTIONS = {
    "recipe": Option(
        f"table of variants (default: {variants.DEFAULT}); --list-recipes prints their names", "NAME|FILE"
    ),
    "small": Option("train the small form that the table has beside its full size"),
    "only": Option("train these variants (default: all); plain is always among them", "NAME,NAME"),
    "seeds": Option("of initial weights and order of the data (default: the table's, or 0,1,2)", "N,N"),
    "steps": Option("optimizer steps of a cell of plain (default: the table's)", "N"),
    "match": Option(
        "what variants and plain have equal (default: the table's, or tokens)",
        "|".join(variants.MATCHES),
        choices=variants.MATCHES,
    ),
    "out": Option("folder that keeps one file a cell (default: runs/ablate/TABLE)", "DIR"),
    "jobs": Option(f"cells trained at once (default: cores / threads, at most {MOST_JOBS}; 1 on a GPU)", "N"),
    "threads": Option("CPU threads of a cell (default: 1)", "N"),
    "hours": Option("start no cell that would not end within so many hours, by those that have ended", "H"),
    "device": command_line.DEVICE,
    "search": Option("search the keys of a file by successive halving, in place of a table of variants", "FILE"),
    "table": Option("train nothing: print the table of the cells there are, as Markdown"),
    "plot": Option(
        "with --table: draw the differences and their intervals (PNG), and in FILE-pareto what they cost", "FILE"
    ),
    "list-recipes": Option("print the tables that come with the project"),
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("every block, three seeds", "uv run apps/ablate"),
    ("in a few minutes", "uv run apps/ablate --recipe ablate-smoke"),
    ("two of them, for longer", "uv run apps/ablate --only qk_norm,window --steps 1000 --out runs/ablate/long"),
    ("more seeds later: finished cells stay", "uv run apps/ablate --only qk_norm --seeds 0,1,2,3,4"),
    ("the best of any keys", "uv run apps/ablate --search apps/ablate/searches/smoke.yaml"),
    ("what is known so far", "uv run apps/ablate --table --plot blocks.png"),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, dotted=True))
    if "help" in arguments.options:
        command_help.print_app_help("ablate", SUMMARY, "", OPTIONS, EXAMPLES)
        return 0
    console = Console(json="json" in arguments.options)
    if "list-recipes" in arguments.options:
        console.say("\n".join(variants.names()))
        return 0
    searched = arguments.path("search")
    if searched is not None:
        return _search(arguments, searched, console)
    path = variants.find(arguments.text("recipe", variants.DEFAULT))
    small = "-small" if "small" in arguments.options else ""
    out = arguments.path("out") or Path("runs/ablate") / f"{path.stem}{small}"
    return (_show if "table" in arguments.options else _train)(arguments, path, out, console)


def _show(arguments: Arguments, path: Path, out: Path, console: Console) -> int:
    """Print the table of the cells in `out`."""
    shows = ("table", "plot", "out", "recipe", "small", "json")
    unused = [
        *(name for name in arguments.options if name not in shows),
        *(each.dotted for each in arguments.overrides),
    ]
    if unused:
        raise BadRequest(f"--table shows the cells there are; leave out --{' and --'.join(unused)}")
    table = variants.read(path)
    found = comparison.of(out, list(table.variants))
    console.say(page.markdown(found))
    fitted = law.check(found.rows) if table.law else None
    if fitted is not None:
        console.say(f"\n{fitted if isinstance(fitted, str) else fitted.said()}")
    picture = arguments.path("plot")
    if picture is not None:
        _draw(found, picture)
    bound = found.baseline.val_bpb
    result: dict[str, Any] = {"bigram_bpb": bound, "rows": [row.to_dict(bound) for row in found.rows]}
    if isinstance(fitted, law.Check):
        result["law"] = fitted.to_dict()
    console.result(result)
    return 0


def _draw(found: comparison.Comparison, picture: Path) -> None:
    try:
        pareto.draw(found, picture.with_name(f"{picture.stem}-pareto{picture.suffix}"))
        forest.draw(found, picture)
    except OSError as error:
        raise BadRequest(f"--plot {picture}: cannot be written ({error.strerror})") from None


def _train(arguments: Arguments, path: Path, out: Path, console: Console) -> int:
    """Train the cells that `out` does not have."""
    if "plot" in arguments.options:
        raise BadRequest("--plot draws the cells there are; give it with --table")
    table = variants.read(path)
    steps = [Override(("train", "steps"), arguments.whole("steps", 1))] if "steps" in arguments.options else []
    only, by = arguments.options.get("only"), arguments.options.get("match")
    match = next((each for each in variants.MATCHES if each == by), None)
    purpose: variants.Purpose = "small" if "small" in arguments.options else "train"
    arms = variants.arms(path, purpose, only if isinstance(only, str) else None, [*arguments.overrides, *steps])
    arms = {name: matching.rematched(arm, match) for name, arm in arms.items()}
    seeds = _seeds(arguments.text("seeds", ",".join(map(str, table.seeds))))
    bits, place = _place(arguments, arms[PLAIN], out)
    lock = _claim(out)
    try:
        schedule.remove_leftovers(out)
        planned = plan.of(out, table, arms, bits, console)
        entries = list(planned.entries(seeds))
        estimate = Estimate()
        missing = _missing(entries, estimate)
        plain = planned.plain
        bound = baseline.of(out, cell.recipe_of(plain, seeds[0], bits), planned.prepared[PLAIN])
        console.say(
            f"{len(entries)} cell{'s' * (len(entries) > 1)} ({', '.join(arms)}; seed {', '.join(map(str, seeds))}): "
            f"{len(entries) - len(missing)} are there, "
            f"{len(missing)} to train, {place.jobs} at a time with {place.threads} thread{'s' * (place.threads > 1)} each; "
            f"the bigram model has {bound.val_bpb:.4f} bits per byte"
        )
        outcome = schedule.train(missing, place, console, estimate)
    finally:
        lock.release()
    for name, reason in outcome.failed.items():
        console.warn(f"{name} failed and has no file: {reason}")
    if outcome.stopped:
        console.say(f"stopped ({outcome.stopped}); finished cells are kept, the same command goes on")
    shown = "" if path == variants.find(variants.DEFAULT) else f"--recipe {arguments.text('recipe', variants.DEFAULT)} "
    console.say(f"results: {out}\nnext: uv run apps/ablate {shown}--table --out {out}")
    there = len(entries) - len(missing) + outcome.trained
    status = "stopped" if outcome.stopped else "failed" if outcome.failed else "done"
    console.result(
        {"cells": len(entries), "finished": there, "failed": outcome.failed, "out": str(out), "status": status}
    )
    return {"stopped": STOPPED, "failed": 1, "done": 0}[status]


def _place(arguments: Arguments, plain: Arm, out: Path) -> tuple[str, Place]:
    """The precision that cells are trained in, and what each process gets."""
    device = processes.device_type(arguments.text("device", "auto"), 1)
    threads = arguments.whole("threads", 1)
    jobs = arguments.whole("jobs", _jobs(device, threads))
    hours = arguments.number("hours", 0.0, 1e-6, 1e5) if "hours" in arguments.options else None
    bits = precision.resolve(plain.recipe.train.precision, torch.device(device))
    return bits, Place(out, jobs, threads, device, bits, hours)


def _search(arguments: Arguments, path: Path, console: Console) -> int:
    """Search what `path` describes."""
    allowed = ("search", "out", "jobs", "threads", "hours", "device", "json")
    unused = [name for name in arguments.options if name not in allowed]
    if unused:
        raise BadRequest(f"--search says itself what is trained; leave out --{' and --'.join(unused)}")
    wanted = search.read(path)
    arms = search.arms(path, wanted, arguments.overrides)
    out = arguments.path("out") or Path("runs/search") / path.stem
    bits, place = _place(arguments, arms[PLAIN], out)
    estimate = Estimate()
    lock = _claim(out)
    try:
        schedule.remove_leftovers(out)
        planned = plan.of(out, Table(train=wanted.train, variants={}), arms, bits, console)
        found = search.run(wanted, planned, console, lambda tasks: schedule.train(tasks, place, console, estimate))
        if isinstance(found, schedule.Outcome):
            for name, reason in found.failed.items():
                console.warn(f"{name} failed and has no file: {reason}")
            if found.stopped:
                console.say(f"stopped ({found.stopped}); finished trials are kept, the same command goes on")
            console.result(
                {"out": str(out), "failed": found.failed, "status": "stopped" if found.stopped else "failed"}
            )
            return STOPPED if found.stopped else 1
        drawn = {key: found.best.overrides[key] for key in wanted.space}
        best = search.write(found, arms[PLAIN], out, drawn)
    finally:
        lock.release()
    console.say(f"{search.markdown(wanted, found)}\n\nbest: {best}\nnext: uv run apps/pretrain --recipe {best}")
    console.result(
        {
            "out": str(out),
            "best": str(best),
            "trial": found.best.variant,
            "overrides": drawn,
            "val_bpb": found.best.val_bpb,
            "trained": sum(len(cells) for cells in found.rungs),
            "status": "done",
        }
    )
    return 0


def _missing(entries: Sequence[Entry], estimate: Estimate) -> list[Entry]:
    """The cells that have no file yet; those that have tell how long cells take. Raises RunError for files of another run."""
    missing: list[Entry] = []
    gone = set()
    for entry in entries:
        if isinstance(entry, Later) and not entry.needs & gone:
            try:
                entry = entry.make()
            except RunError:  # of a cell that it waited for and that diverged: told when its turn comes
                missing.append(entry)
                continue
        if isinstance(entry, Later) or not plan.is_finished(entry):
            missing.append(entry)
            gone.add(entry.path)
        else:
            found = cell.read(entry.path)
            estimate.observe(found.variant, found.steps, found.seconds)
    return missing


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
