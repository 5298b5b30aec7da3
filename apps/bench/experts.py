"""`uv run apps/bench experts RUN`: does a cognitive expert do what it is named for? Each is silenced in turn.

Held-out rows of the run's data are scored source by source, with all experts and with one of them silenced (the router chooses
among the others). Reported is what the loss of a source gains from that, in nats a token, with the standard error over rows,
paired by row. An expert for logic should be missed more by arithmetic than by prose.
"""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import tinydata
from apps.bench import results
from apps.common import checkpoints, command_help, recipes, run_record, tasks
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console
from apps.common.data import Prepared
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.markdown import table
from apps.common.validation import to_device
from tinycore import Decoder
from tinycore.ffns.experts import silenced

OPTIONS = {
    "rows": Option("held-out rows that are scored (default: 512)", "N"),
    "json": Option("write the figures to a file", "FILE"),
    "help": HELP,
}
EXAMPLES = (("a run with two experts", "uv run apps/bench experts runs/experts-10m"),)
BATCH = 16
ALL = "all experts"
Losses = dict[str, dict[int, tuple[float, int]]]  # source -> row -> (sum of the loss, targets)


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for, print it and write it down; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS, words="RUN"))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "experts", OPTIONS, EXAMPLES)
        return 0
    if len(arguments.words) != 1:
        raise BadRequest("give one run or checkpoint, such as runs/experts-10m")
    console, count = Console(), arguments.whole("rows", 512)
    checkpoint = run_record.checkpoint_of(Path(arguments.words[0]))
    recipe = recipes.from_dict(checkpoints.read_progress(checkpoint)[0].recipe)
    named = recipe.expert_labels()
    if not named or not isinstance(recipe.data, TextData):
        raise BadRequest(f"{checkpoint}: no source of its data is told an expert (data.experts)")
    prepared = tasks.prepare(recipe, console)
    assert isinstance(prepared, Prepared)
    sources = sorted(named)
    loader = tinydata.Loader(
        prepared.validation,
        sequence_length=recipe.data.positions,
        batch_size=BATCH,
        labels={source: index for index, source in enumerate(sources)},
    )
    model = checkpoints.load_model(checkpoint).eval()
    names = list(recipe.data.experts)
    scored = {ALL: score(model, loader, sources, count)}
    for name in names:
        console.say(f"scoring {count} rows without {name}")
        with silenced(model, name):
            scored[name] = score(model, loader, sources, count)
    found = compare(scored, sources, names)
    console.say("\n" + markdown(found, names))
    target = arguments.path("json")
    if target is not None:
        results.write(
            target, shlex.join(["uv", "run", "apps/bench", "experts", *argv]), {"rows": count, "sources": found}
        )
    return 0


@torch.inference_mode()
def score(model: Decoder, loader: tinydata.Loader, sources: list[str], count: int) -> Losses:
    """The loss of the first `count` rows by source."""
    found: Losses = defaultdict(dict)
    row = 0
    for batch in loader.epoch_batches(count):
        tokens, targets, documents, labels = to_device(batch, torch.device("cpu"))
        logits = model(tokens, doc_ids=documents).logits
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none").view_as(
            targets
        )
        for index, source in enumerate(sources):
            mine = (labels == index) & (targets != -100)
            for each in range(len(tokens)):
                if number := int(mine[each].sum()):
                    found[source][row + each] = (float(nats[each][mine[each]].double().sum()), number)
        row += len(tokens)
    return found


def compare(scored: dict[str, Losses], sources: list[str], names: list[str]) -> dict[str, Any]:
    """By source: its loss with all experts, and by expert what it gains without it, with the standard error over rows."""
    found: dict[str, Any] = {}
    for source in sources:
        rows = scored[ALL][source]
        targets = sum(number for _, number in rows.values())
        if not targets:
            continue
        entry: dict[str, Any] = {"targets": targets, "loss": sum(total for total, _ in rows.values()) / targets}
        for name in names:
            other = scored[name][source]
            gain = sum(other[row][0] - rows[row][0] for row in rows) / targets
            residuals = [other[row][0] - rows[row][0] - gain * rows[row][1] for row in rows]
            spread = math.sqrt(sum(r * r for r in residuals)) / targets if len(rows) > 1 else math.nan
            entry[name] = {"gain": gain, "standard_error": spread}
        found[source] = entry
    return found


def markdown(found: dict[str, Any], names: list[str]) -> str:
    """One row for each source."""
    rows = []
    for source, entry in found.items():
        cells = [f"{entry[name]['gain']:+.3f} ± {entry[name]['standard_error']:.3f}" for name in names]
        rows.append([source, f"{entry['targets']:,}", f"{entry['loss']:.3f}", *cells])
    return table(["source", "targets", "nats a token", *(f"without {name}" for name in names)], rows)
