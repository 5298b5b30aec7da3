"""`uv run apps/bench width`: is the learning rate of a narrow model right for a wide one? With width transfer and without.

The demo recipe's data, two layers, trained for a few steps at each width and rate; the narrowest width is `optim.base_width`. A
cell is what the held-out rows score at the end. Reported is, for each width, what the rate that is best at the narrowest one
loses against the best of that width. At the narrowest width both ways are one and the same, and are trained once.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tinycore
from apps.bench import results, width_report
from apps.common import command_help, files, optimization, processes, recipes, tasks
from apps.common.command_line import HELP, Arguments, Grammar, Option, take_apart
from apps.common.console import Console, duration
from apps.common.data import Prepared
from apps.common.errors import BadRequest
from apps.common.language_task import LanguageTask
from apps.common.processes import World
from apps.common.recipe import Recipe

OPTIONS = {
    "widths": Option("channels of the models, narrowest first (default: 64,128,256)", "N,N"),
    "rates": Option("learning rates (default: six, from .002 to .064)", "X,X"),
    "steps": Option("optimizer steps of four rows of 256 tokens (default: 80)", "N"),
    "seeds": Option("runs of each, with other weights and rows (default: 2)", "N"),
    "optimizer": Option("adamw (default), muon, adam_atan2, ...", "KIND"),
    "json": Option("write each cell's figures there, and go on from those it has", "FILE"),
    "plot": Option("draw the score by rate", "FILE"),
    "help": HELP,
}
EXAMPLES = (
    ("in a minute", "uv run apps/bench width --widths 32,64 --rates 0.004,0.016 --steps 20 --seeds 1"),
    ("all; again after a stop", "uv run apps/bench width --json docs/benchmarks/width-cpu.json --plot docs/width.png"),
)
RATES = "0.002,0.004,0.008,0.016,0.032,0.064"
SHAPES = ("optimizer", "widths", "steps")  # settings that cells of one file share
HEAD = 32  # channels of a head, at every width


def main(argv: Sequence[str]) -> int:
    """Train what `argv` asks for and print it; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "width", OPTIONS, EXAMPLES)
        return 0
    console, settings = Console(), _settings(arguments)
    target = arguments.path("json")
    found = _kept(target, settings)
    prepared = tasks.prepare(recipe_of(settings, settings["widths"][0], False, settings["rates"][0], 0), console)
    assert isinstance(prepared, Prepared)
    world = processes.start("cpu", "fp32", 1, ())
    missing = [cell for cell in cells(settings) if name_of(*cell) not in found]
    command, began = shlex.join(["uv", "run", "apps/bench", "width", *argv]), time.monotonic()
    for done, (width, transfer, rate, seed) in enumerate(missing):
        score = trained(recipe_of(settings, width, transfer, rate, seed), prepared, world)
        found[name_of(width, transfer, rate, seed)] = score
        if target is not None:
            results.write(target, command, {"settings": settings, "data": prepared.content, "val_bpb": found})
        spent = time.monotonic() - began
        left = duration(spent / (done + 1) * (len(missing) - done - 1))
        told = "diverged" if score is None else f"{score:.4f}"
        console.say(f"{name_of(width, transfer, rate, seed)}: {told}; {done + 1} of {len(missing)}, {left} left")
    console.say("\n" + width_report.markdown(found, settings))
    plot = arguments.path("plot")
    if plot is not None:
        width_report.draw(plot, found, settings)
        console.say(f"\nplot: {plot}")
    return 0


def _settings(arguments: Arguments) -> dict[str, Any]:
    try:
        widths = [int(part) for part in arguments.text("widths", "64,128,256").split(",")]
        rates = [float(part) for part in arguments.text("rates", RATES).split(",")]
    except ValueError:
        raise BadRequest("--widths and --rates: are numbers with commas between them, such as 64,128") from None
    if widths != sorted(set(widths)) or any(width < HEAD or width % HEAD for width in widths):
        raise BadRequest(f"--widths: {widths} are not growing multiples of {HEAD}, the channels of a head")
    if rates != sorted(set(rates)) or not all(0 < rate < math.inf for rate in rates):
        raise BadRequest(f"--rates: {rates} are not growing numbers above 0")
    kind = arguments.text("optimizer", "adamw")
    return {
        "optimizer": kind,
        "widths": widths,
        "rates": rates,
        "steps": arguments.whole("steps", 80),
        "seeds": arguments.whole("seeds", 2),
    }


def _kept(target: Path | None, settings: dict[str, Any]) -> dict[str, float | None]:
    """The cells that the file has already. Raises BadRequest where they belong to other settings."""
    if target is None or not target.exists():
        return {}
    document = files.read_json(target)
    there = document.get("settings")
    for key in SHAPES:
        if not isinstance(there, dict) or there.get(key) != settings[key]:
            raise BadRequest(f"{target}: was measured with other {key}; give another file")
    kept = document.get("val_bpb")
    return dict(kept) if isinstance(kept, dict) else {}


def cells(settings: dict[str, Any]) -> list[tuple[int, bool, float, int]]:
    """(width, transfer, rate, seed) of everything that is trained."""
    first = settings["widths"][0]
    return [
        (width, transfer, rate, seed)
        for seed in range(settings["seeds"])
        for width in settings["widths"]
        for transfer in ((True,) if width == first else (False, True))
        for rate in settings["rates"]
    ]


def name_of(width: int, transfer: bool, rate: float, seed: int) -> str:
    """How a cell is called in the file."""
    return f"{width} | {'transfer' if transfer else 'plain'} | {rate:g} | {seed}"


def recipe_of(settings: dict[str, Any], width: int, transfer: bool, rate: float, seed: int) -> Recipe:
    """The run of a cell: everything but the width stays, the embedding's scale too."""
    plain = recipes.to_dict(recipes.load("demo"))
    heads = width // HEAD
    layer = {
        "repeat": 2,
        "mixer": {"kind": "attention", "heads": heads},
        "ffn": {"kind": "swiglu", "hidden": 3 * width},
    }
    plain["model"] |= {"dim": width, "layers": [layer]}
    plain["optim"] = {
        "kind": settings["optimizer"],
        "learning_rate": rate,
        "betas": [0.9, 0.98],
        "base_width": settings["widths"][0] if transfer else None,
        "schedule": {"kind": "wsd", "warmup": 10, "decay": 0.3, "final": 0.0},
    }
    plain["train"] |= {"steps": settings["steps"], "batch_size": 4, "micro_batch": 4, "validate_rows": 64, "seed": seed}
    return recipes.from_dict(plain)


def trained(recipe: Recipe, prepared: Prepared, world: World) -> float | None:
    """Bits per byte of the held-out rows after the recipe's steps; None where the loss is not finite."""
    torch.manual_seed(recipe.train.seed)
    model = tinycore.build(recipe.model)
    optimizer = optimization.optimizer(recipe.optim, model)
    peaks = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    factors, task = optimization.factors(recipe.optim, recipe.train.steps), LanguageTask(recipe, prepared, world)
    for step, batch in zip(range(recipe.train.steps), task.loader, strict=False):
        factor = factors(step)
        for group, (rate, decay) in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"], group["weight_decay"] = rate * factor.rate, decay * factor.decay
        ((losses, _),) = task.passes(model, batch)
        loss = torch.stack([total / count for total, count in losses.values()]).sum()
        if not math.isfinite(loss.item()):
            return None
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip)
        optimizer.step()
    score = task.validator(model).bpb
    return score if math.isfinite(score) else None
