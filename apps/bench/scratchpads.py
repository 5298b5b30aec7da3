"""`uv run apps/bench scratchpads`: does writing states down let a model solve longer problems than it has learned from?

For each task and each form of solution one model a seed is trained on short problems, then asked for problems of one, two,
four and six times the longest of them, greedily, by tinyreason's drivers; an answer counts where it is exactly right.

    addition, parity, sorting    direct: the answer at once; plain: all states in one text; inductive: each state from the
                                 question and the state before it alone (arXiv 2406.06467)
    notes                        direct: the story, then the question; notes: a note behind every sentence (arXiv 2305.00833)

All models have the same layers and are trained on the same number of tokens, padding included, with one learning rate. Test
problems are the same for all and are never trained on. Each cell is written to --json when it is done, so that a stopped run
goes on.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apps.bench import results, scratchpads_report
from apps.bench.scratchpads_trial import FORMS, LEARNED, POSITIONS, TIMES, Trial
from apps.common import command_help, files
from apps.common.command_line import HELP, Arguments, Grammar, Option, take_apart
from apps.common.console import Console, duration
from apps.common.errors import BadRequest

OPTIONS = {
    "tasks": Option(f"these tasks (default: all of {', '.join(FORMS)})", "NAME,NAME"),
    "forms": Option("these forms of solution, where a task has them (default: all)", "NAME,NAME"),
    "seeds": Option("models of each, with other weights and problems (default: 3)", "N"),
    "first-seed": Option("the first of the seeds (default: 0)", "N"),
    "steps": Option("optimizer steps of 1,024 tokens (default: 600)", "N"),
    "problems": Option("test problems of each length (default: 200)", "N"),
    "rate": Option("highest learning rate (default: 0.005)", "LR"),
    "positions": Option("what tells the layers where tokens stand (default: mixed)", "|".join(POSITIONS)),
    "json": Option("write each cell's figures there, and go on from those it has", "FILE"),
    "plot": Option("draw the accuracy by length", "FILE"),
    "help": HELP,
}
EXAMPLES = (
    ("one task, one seed", "uv run apps/bench scratchpads --tasks parity --seeds 1"),
    (
        "all of them; again after a stop",
        "uv run apps/bench scratchpads --json docs/benchmarks/scratchpads.json --plot docs/scratchpads.png",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Train and ask what `argv` names; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "scratchpads", OPTIONS, EXAMPLES)
        return 0
    console, settings = Console(), _settings(arguments)
    chosen = [(task, form) for task, form in _pairs() if form in settings["forms"] and task in settings["tasks"]]
    if not chosen:
        raise BadRequest("--forms: none of the tasks is solved in that form")
    seeds = range(settings["first_seed"], settings["first_seed"] + settings["seeds"])
    target = arguments.path("json")
    found = _kept(target, settings)
    cells = [(task, form, seed) for seed in seeds for task, form in chosen]
    missing = [cell for cell in cells if " | ".join(map(str, cell)) not in found]
    command = shlex.join(["uv", "run", "apps/bench", "scratchpads", *argv])
    began = time.monotonic()
    for done, (task, form, seed) in enumerate(missing):
        found[f"{task} | {form} | {seed}"] = Trial(task, form, seed, settings).run()
        if target is not None:
            summary = scratchpads_report.summary(found)
            results.write(target, command, {"settings": settings, "summary": summary, "cells": found})
        spent = time.monotonic() - began
        left = spent / (done + 1) * (len(missing) - done - 1)
        shares = ", ".join(
            f"{asked['right']}/{asked['n']}" for asked in found[f"{task} | {form} | {seed}"]["asked"].values()
        )
        counted = f"{done + 1} of {len(missing)} in {duration(spent)}; {duration(left)} left"
        console.say(f"{task}, {form}, seed {seed}: right {shares}; {counted}")
    shown = {key: entry for key, entry in found.items() if tuple(key.split(" | ")[:2]) in chosen}
    console.say("\n" + scratchpads_report.markdown(shown, settings))
    plot = arguments.path("plot")
    if plot is not None:
        scratchpads_report.draw(plot, shown)
        console.say(f"\nplot: {plot}")
    return 0


def _pairs() -> list[tuple[str, str]]:
    return [(task, form) for task, forms in FORMS.items() for form in forms]


def _settings(arguments: Arguments) -> dict[str, Any]:
    forms = tuple(dict.fromkeys(form for _, form in _pairs()))
    positions = arguments.text("positions", "mixed")
    if positions not in POSITIONS:
        raise BadRequest(f"--positions: {positions!r} is none of {', '.join(POSITIONS)}")
    return {
        "tasks": _names(arguments, "tasks", tuple(FORMS)),
        "forms": _names(arguments, "forms", forms),
        "seeds": arguments.whole("seeds", 3),
        "first_seed": arguments.whole("first-seed", 0, 0),
        "steps": arguments.whole("steps", 600),
        "problems": arguments.whole("problems", 200),
        "rate": arguments.number("rate", 0.005, 1e-6, 1.0),
        "positions": positions,
        "learned": {task: list(sizes) for task, sizes in LEARNED.items()},
        "times": list(TIMES),
    }


def _names(arguments: Arguments, option: str, known: tuple[str, ...]) -> list[str]:
    named = [name.strip() for name in arguments.text(option, ",".join(known)).split(",")]
    wrong = next((name for name in named if name not in known), None)
    if wrong is not None:
        raise BadRequest(f"--{option}: {wrong!r} is none of {', '.join(known)}")
    return named


def _kept(target: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The cells that the file has already. Raises BadRequest where they belong to other settings."""
    if target is None or not target.exists():
        return {}
    document = files.read_json(target)
    there = document.get("settings")
    for key in ("steps", "problems", "rate", "positions", "learned", "times"):
        if not isinstance(there, dict) or there.get(key) != settings[key]:
            raise BadRequest(f"{target}: was measured with other {key}; give another file")
    cells = document.get("cells")
    return dict(cells) if isinstance(cells, dict) else {}
