"""`uv run apps/bench memory [--recipe NAME | --table NAME] [--micro-batch N] [--json FILE]`: memory, predicted and measured on
the CPU.

Each recipe trains in a process of its own: three steps, validation, samples and a checkpoint, as a run does, on a small
part of the embedded corpus prepared before, with the recipe's precision and no more than two micro-batches a step. The
total is the most that the process ever held. Kinds are counted afterwards, on one more micro-batch: activations with
autograd's saved-tensor hooks, temporaries as what torch's profiler sees allocated beyond them; the allocator's part is
what remains of the total.

`--table ablate-kitsun` takes the arms of an ablation at their full size in place of a recipe: each is measured as above, and
timed for a few steps of one micro-batch; and of each is predicted what a GPU would hold, by kind, and the most rows at a time
that fit some budgets. `--predict` stops there, and trains nothing.
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

import tinycore
from apps.bench import results
from apps.common import fit, recipes, variants
from apps.common.command_line import HELP, Arguments, Grammar, Option, take_apart
from apps.common.console import Console, size
from apps.common.data import prepare
from apps.common.data_config import EmbeddedSource, TextData, TrainedTokenizer
from apps.common.errors import BadRequest, TrainingFailed
from apps.common.markdown import table
from apps.common.recipe import AdamW, Recipe

DEFAULT = (("demo", None), ("brandon-226k", None), ("brandon-900k", None), ("brandon-10m", 4), ("brandon-110m-v1", 1))
OPTIONS = {
    "recipe": Option("recipe to measure (default: five, from demo to brandon-110m-v1)", "NAME|FILE"),
    "table": Option("measure the arms of an ablation instead, such as ablate-kitsun", "NAME"),
    "predict": Option("with --table: predict only, and measure nothing"),
    "micro-batch": Option("sequences a forward (default: the recipe's)", "N"),
    "json": Option("write the figures, with what they were measured on, to a file", "FILE"),
    "help": HELP,
}
TENSORS = ("weights", "gradients", "optimizer", "activations", "temporaries")
SECONDS = 3600  # that one recipe may take
GPU = fit.Place("cuda", "bf16", fit.CUDA_RUNTIME)
BUDGETS = ("4GB", "8GB", "12GB", "24GB", "80GB")
MOST = 4096  # rows at a time that are looked for
TIMED = 5  # steps of each arm
VOCABULARY = (
    4096  # of the tokenizer that an arm is measured with: its model has its own number of tokens, and so its tensors
)


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for, print it and write it down; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    console = Console()
    if "help" in arguments.options:
        console.say(__doc__ or "")
        return 0
    table_name = arguments.options.get("table")
    if isinstance(table_name, str):
        return _table(table_name, arguments, console, argv)
    if "predict" in arguments.options:
        raise BadRequest(
            "--predict needs --table NAME; of a recipe, `uv run apps/pretrain --recipe NAME --dry-run` predicts"
        )
    found = []
    for name, micro_batch in _asked(arguments):
        found.append(measure(name, micro_batch))
        _show(found[-1], console)
    console.say(f"\nMiB, predicted and measured: tensors at their fullest moment, and the process\n{markdown(found)}")
    _write(arguments, argv, {"recipes": found})
    _tell(arguments, console)
    return 0


def _table(name: str, arguments: Arguments, console: Console, argv: Sequence[str]) -> int:
    """Predict and measure every arm of the ablation `name`."""
    if "recipe" in arguments.options:
        raise BadRequest("--table and --recipe are two things to measure; give one of them")
    micro_batch, predicting = arguments.whole("micro-batch", 1), "predict" in arguments.options
    found = []
    for arm, variant in variants.arms(variants.find(name), "train").items():
        found.append({"recipe": arm, **foreseen(variant.recipe)})
        if not predicting:
            found[-1] |= measure(arm, micro_batch, of_arm(variant.recipe), TIMED)
            _show(found[-1], console)
        _write(arguments, argv, {"arms": found})  # what there is so far: the next one may take long
    for page in (split(found), *([] if predicting else [beside(found)]), room(found)):
        console.say(f"\n{page}")
    _tell(arguments, console)
    return 0


def _tell(arguments: Arguments, console: Console) -> None:
    target = arguments.path("json")
    if target is not None:
        console.say(f"\nwritten to {target}")


def _write(arguments: Arguments, argv: Sequence[str], figures: dict[str, Any]) -> None:
    target = arguments.path("json")
    if target is not None:
        command = shlex.join(["uv", "run", "apps/bench", "memory", *argv])
        allocator = {"libc": " ".join(platform.libc_ver()), "heap_share": fit.HEAP_SHARE, "heap_bytes": fit.HEAP_BYTES}
        results.write(target, command, {"allocator": allocator, **figures})


def foreseen(recipe: Recipe) -> dict[str, Any]:
    """What a GPU would hold of `recipe` with its batch in one forward, by kind, and the most rows of each of `BUDGETS`."""
    recipe = replace(recipe, train=replace(recipe.train, micro_batch=None))
    batch = recipe.train.batch_size
    return {
        "parameters": tinycore.count(recipe.model).parameters,
        "batch": batch,
        "gpu": fit.predict(recipe, GPU, batch),
        "rows": {budget: most_rows(recipe, fit.parse(budget)) for budget in BUDGETS},
        "rows_low_rank": {
            budget: most_rows(replace(recipe, train=replace(recipe.train, recompute="low_rank")), fit.parse(budget))
            for budget in BUDGETS
        },
    }


def most_rows(recipe: Recipe, budget: fit.Budget) -> int:
    """The most rows of one forward, which is the whole batch, whose prediction on a GPU fits; 0 where one does not."""
    # what an optimizer holds does not depend on the rows, and is slow to say of Muon
    plain = replace(recipe, optim=AdamW())
    spared = fit.predict(plain, GPU, 1)["optimizer"] - fit.predict(recipe, GPU, 1)["optimizer"]
    fits, misses = 0, MOST + 1
    while misses - fits > 1:
        rows = (fits + misses) // 2
        alone = replace(plain, train=replace(recipe.train, batch_size=rows))
        if fit.predict(alone, GPU, rows)["total"] - spared <= budget.bytes:
            fits = rows
        else:
            misses = rows
    return fits


def of_arm(recipe: Recipe) -> Recipe:
    """`recipe` with a tokenizer that is trained in seconds; its model, and so every tensor, stays."""
    data = recipe.data
    if isinstance(data, TextData) and isinstance(data.tokenizer, TrainedTokenizer):
        vocabulary = min(VOCABULARY, data.tokenizer.vocab_size)
        data = replace(data, tokenizer=replace(data.tokenizer, vocab_size=vocabulary))
    return replace(recipe, data=data)


def measure(name: str, micro_batch: int | None = None, recipe: Recipe | None = None, timed: int = 0) -> dict[str, Any]:
    """Predicted and measured bytes of training recipe `name`, or `recipe` under that name, by kind, and the milliseconds of
    `timed` steps of one micro-batch. Raises TrainingFailed if its process fails."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = shortened(recipes.load(name) if recipe is None else recipe, micro_batch, Path(folder))
        prepare(recipe, Console(main_process=False))
        job = {"recipe": recipes.to_dict(recipe), "out": str(Path(folder) / "run"), "timed": timed}
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


def split(found: Sequence[dict[str, Any]]) -> str:
    """What a GPU is predicted to hold of the arms, by kind, in MiB."""
    kinds = ["weights", "gradients", "optimizer", "activations", "temporaries", "total"]
    rows = [
        [row["recipe"], f"{row['parameters'] / 1e6:.1f}M", *(f"{row['gpu'][kind] / 2**20:,.0f}" for kind in kinds)]
        for row in found
    ]
    return table(["arm", "parameters", *kinds], rows)


def beside(found: Sequence[dict[str, Any]]) -> str:
    """Predicted and measured bytes of the arms on a CPU, in MiB, and the milliseconds of a step."""
    head = ["arm", "tensors", "measured", "process", "measured", "ratio", "ms a step, p20", "p50", "p80"]
    rows = []
    for row in found:
        pairs = [row["predicted"], row["measured"]]
        tensors = [sum(part[kind] for kind in TENSORS) for part in pairs]
        totals = [part["total"] for part in pairs]
        cells = [f"{value / 2**20:,.0f}" for value in (*tensors, *totals)]
        times = [f"{row['milliseconds'][name]:,.0f}" for name in ("p20", "p50", "p80")]
        rows.append([row["recipe"], *cells, f"{totals[0] / totals[1]:.3f}", *times])
    return table(head, rows)


def room(found: Sequence[dict[str, Any]]) -> str:
    """The most rows at a time that each budget holds of the arms, and with what is kept of low rank only."""
    rows = [
        [row["recipe"], *(f"{row['rows'][budget]} / {row['rows_low_rank'][budget]}" for budget in BUDGETS)]
        for row in found
    ]
    return table(["arm", *BUDGETS], rows)


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
