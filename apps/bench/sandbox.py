"""`uv run apps/bench sandbox`: how many programs a second each engine of tinyreason's sandbox runs, and the first run's wait.

Two programs: the least there is, and the kind that models of apps/finetune write (a few sums, one line printed). The first run
of an engine includes its imports. A bare subprocess of the same Python is timed beside them, as what a sandbox is compared
with, on a program of ours; nothing that a model wrote is ever run that way.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from apps.bench import results
from apps.bench.rounds import alternate, spread
from apps.common import command_help
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console
from apps.common.errors import TrainingFailed
from apps.common.markdown import table
from tinyreason.sandbox import CodeSandbox, SandboxUnavailable

OPTIONS = {
    "rounds": Option("times that each is timed, after one that is not counted (default: 20)", "N"),
    "json": Option("write the figures, with the machine they were measured on, to a file", "FILE"),
    "help": HELP,
}
EXAMPLES = (("all engines that can run here", "uv run apps/bench sandbox"),)
PROGRAMS = {
    "one line": ("print(1)", "1"),
    "word problem": ("apples = 12\nfor day in range(30):\n    apples = apples + day * 3\nprint(apples - 7)", "1310"),
}
Run = Callable[[str], str]


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for and print it; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "sandbox", OPTIONS, EXAMPLES)
        return 0
    console, rounds = Console(), arguments.whole("rounds", 20)
    ways: dict[str, Run] = {}
    found: dict[str, Any] = {}
    for engine in ("monty", "full"):
        began = time.perf_counter()
        try:
            ways[engine] = _sandboxed(CodeSandbox(engine))
        except SandboxUnavailable as error:
            console.say(f"{engine}: cannot run here ({error})")
            continue
        ways[engine](PROGRAMS["one line"][0])
        found[engine] = {"first_run_milliseconds": 1000 * (time.perf_counter() - began)}
    ways["bare subprocess"] = _bare
    found["bare subprocess"] = {}
    rows = []
    for program, (source, expected) in PROGRAMS.items():
        for name, run in ways.items():
            if run(source).strip() != expected:
                raise TrainingFailed(f"{name}: {program} printed something else; nothing was timed")
        seconds = alternate({name: partial(run, source) for name, run in ways.items()}, rounds)
        for name, taken in seconds.items():
            one = spread([1000 * second for second in taken])
            found[name][program] = {"milliseconds": one.to_dict(), "runs_a_second": 1000 / one.median}
            first = found[name].get("first_run_milliseconds")
            shown = "" if first is None else f"{first:.0f}"
            rows.append((f"{name}, {program}", one.shown(), f"{1000 / one.median:,.0f}", shown))
    console.say(table(("engine, program", "ms a run", "runs a second", "ms of the first"), rows))
    target = arguments.path("json")
    if target is not None:
        results.write(target, shlex.join(["uv", "run", "apps/bench", "sandbox", *argv]), found)
        console.say(f"\nwritten to {target}")
    return 0


def _sandboxed(sandbox: CodeSandbox) -> Run:
    return lambda source: sandbox.run(source).output


def _bare(source: str) -> str:
    return subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, text=True, check=True).stdout
