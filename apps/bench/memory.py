"""`uv run apps/bench memory [--recipe NAME] [--micro-batch N] [--json FILE]`: predicted memory beside measured, on the CPU.

Each recipe trains in a process of its own: three steps, validation, samples and a checkpoint, as a run does, on a small
part of the embedded corpus prepared before, with the recipe's precision and no more than two micro-batches a step. The
total is the most that the process ever held. Kinds are counted afterwards, on one more micro-batch: activations with
autograd's saved-tensor hooks, temporaries as what torch's profiler sees allocated beyond them; the allocator's part is
what remains of the total.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.bench import results
from apps.common import fit, recipes
from apps.common.command_line import HELP, Arguments, Grammar, Option, take_apart
from apps.common.console import Console, size
from apps.common.data import prepare
from apps.common.data_config import EmbeddedSource, TextData
from apps.common.errors import BadRequest, TrainingFailed
from apps.common.markdown import table
from apps.common.recipe import Recipe

DEFAULT = (("demo", None), ("brandon-226k", None), ("brandon-900k", None), ("brandon-10m", 4), ("brandon-110m-v1", 1))
OPTIONS = {
    "recipe": Option("recipe to measure (default: five, from demo to brandon-110m-v1)", "NAME|FILE"),
    "micro-batch": Option("sequences a forward (default: the recipe's)", "N"),
    "json": Option("write the figures, with what they were measured on, to a file", "FILE"),
    "help": HELP,
}
TENSORS = ("weights", "gradients", "optimizer", "activations", "temporaries")
SECONDS = 1800  # that one recipe may take


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for, print it and write it down; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    console = Console()
    if "help" in arguments.options:
        console.say(__doc__ or "")
        return 0
    found = []
    for name, micro_batch in _asked(arguments):
        found.append(measure(name, micro_batch))
        _show(found[-1], console)
    console.say(f"\nMiB, predicted and measured: tensors at their fullest moment, and the process\n{markdown(found)}")
    target = arguments.path("json")
    if target is not None:
        command = shlex.join(["uv", "run", "apps/bench", "memory", *argv])
        allocator = {"libc": " ".join(platform.libc_ver()), "heap_share": fit.HEAP_SHARE, "heap_bytes": fit.HEAP_BYTES}
        results.write(target, command, {"allocator": allocator, "recipes": found})
        console.say(f"\nwritten to {target}")
    return 0


def measure(name: str, micro_batch: int | None = None) -> dict[str, Any]:
    """Predicted and measured bytes of training recipe `name`, by kind. Raises TrainingFailed if its process fails."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = shortened(recipes.load(name), micro_batch, Path(folder))
        prepare(recipe, Console(main_process=False))
        job = {"recipe": recipes.to_dict(recipe), "out": str(Path(folder) / "run")}
        done = subprocess.run(
            [sys.executable, "-m", "apps.bench.memory_run"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    if done.returncode:
        raise TrainingFailed(
            f"measuring {name}: {(done.stderr.strip().splitlines() or ['its process ended early'])[-1]}"
        )
    return {"recipe": name, **json.loads(done.stdout.splitlines()[-1])}


def shortened(recipe: Recipe, micro_batch: int | None, folder: Path) -> Recipe:
    """`recipe` with three short steps of the same tensors, and data that is prepared in seconds under `folder`."""
    if not isinstance(recipe.data, TextData):
        raise BadRequest(f"--recipe: measures recipes of text, and this one learns {recipe.data.kind}")
    if micro_batch is not None:
        recipe = replace(recipe, train=replace(recipe.train, micro_batch=micro_batch))
    size, windows = recipe.micro_batch(), min(2, recipe.accumulation())
    source = EmbeddedSource(parts=("stories", "arithmetic"), documents=2000)
    return replace(
        recipe,
        data=replace(recipe.data, sources=(source,), validation=0.05, cache=str(folder / "data")),
        train=replace(
            recipe.train,
            steps=3,
            batch_size=size * windows,
            micro_batch=size,
            validate_rows=size,
            trackers=(),
            ema=None,
        ),
        sample=replace(recipe.sample, max_new_tokens=4),
    )


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The figures as a table, in MiB."""
    head = ["recipe", "micro-batch", "length", "precision", "tensors", "measured", "process", "measured", "ratio"]
    rows = []
    for row in found:
        predicted, measured = row["predicted"], row["measured"]
        tensors = [sum(part[kind] for kind in TENSORS) for part in (predicted, measured)]
        totals = [part["total"] for part in (predicted, measured)]
        ratio = f"{totals[0] / totals[1]:.3f}"
        cells = [f"{value / 2**20:,.0f}" for value in (*tensors, *totals)]
        rows.append([row["recipe"], str(row["micro_batch"]), str(row["length"]), row["precision"], *cells, ratio])
    return table(head, rows)


def _asked(arguments: Arguments) -> list[tuple[str, int | None]]:
    micro_batch = arguments.whole("micro-batch", 1) if "micro-batch" in arguments.options else None
    name = arguments.options.get("recipe")
    if isinstance(name, str):
        return [(name, micro_batch)]
    if micro_batch is not None:
        raise BadRequest("--micro-batch needs --recipe NAME")
    return list(DEFAULT)


def _show(row: dict[str, Any], console: Console) -> None:
    console.head(row["recipe"], f"micro-batch {row['micro_batch']} of {row['length']} tokens, {row['precision']}")
    predicted, measured = row["predicted"], row["measured"]
    lines = [[kind, size(predicted[kind]), size(measured[kind])] for kind in predicted]
    console.columns(["kind", "predicted", "measured"], lines)
    console.say(f"prediction / measured: {predicted['total'] / measured['total']:.3f}")
