"""`uv run apps/bench hops`: does depth by repetition reason? Models learn to follow a chain of pointers and are asked for more.

Each model of the table is trained on the same rows (`tinydata.synthetic.Hops`: 1 to --steps lookups one after the other, every
one asked) and then asked for up to twice as many, looped models also with other numbers of loops than they were trained with.
`plain 2` has the parameters of every looped model (two layers); `plain 4` the FLOPs of two loops, `plain 8` those of four.
Reported: exact answers by number of lookups, mean and standard error over seeds; what models that decide it took in steps.
One learning rate for all, not tuned for any. Each cell is written to --json when it is done, so that a stopped run goes on.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tinycore
from apps.bench import hops_report, results
from apps.common import command_help, files
from apps.common.command_line import HELP, Arguments, Grammar, Option, take_apart
from apps.common.console import Console, duration
from apps.common.errors import BadRequest, TrainingFailed
from tinycore.optim.groups import adamw
from tinydata.synthetic.hops import Hops

OPTIONS = {
    "only": Option("train these models (default: all)", "NAME,NAME"),
    "seeds": Option("runs of each, with other weights and rows (default: 3)", "N"),
    "train-steps": Option("optimizer steps of 64 rows (default: 1200)", "N"),
    "steps": Option("lookups learned, one to this many (default: 4)", "N"),
    "nodes": Option("nodes of a chain, and tokens that state it (default: 8)", "N"),
    "json": Option("write each cell's figures there, and go on from those it has", "FILE"),
    "plot": Option("draw the accuracy by lookups", "FILE"),
    "help": HELP,
}
EXAMPLES = (
    ("two models, one seed", "uv run apps/bench hops --only 'plain 2,looped 2x4' --seeds 1"),
    ("all of them; again after a stop", "uv run apps/bench hops --json docs/benchmarks/hops.json --plot docs/hops.png"),
)
ROWS, RATE, WARMUP, DECAY = 64, 3e-3, 100, 0.2
DIM, HEADS, HIDDEN = 64, 4, 128
ASKED = 512  # chains that are asked for after training
LONGER = 2  # times the lookups learned
CONTEXT = 512


@dataclass(frozen=True)
class Model:
    """Layers that own parameters, and their depth; `asked`: the changes of its depth it is asked with, after training."""

    layers: int
    depth: dict[str, Any]
    asked: tuple[dict[str, Any], ...] = ({},)


def _loops(count: int, *asked: int, **settings: Any) -> Model:
    return Model(2, {"kind": "looped", "loops": count, **settings}, tuple({"loops": n} for n in (count, *asked)))


MODELS = {
    "plain 2": Model(2, {"kind": "plain"}),
    "looped 2x2": _loops(2, 4, 8),
    "looped 2x4": _loops(4, 2, 8),
    "plain 4": Model(4, {"kind": "plain"}),
    "plain 8": Model(8, {"kind": "plain"}),
    "looped 2x4, drawn": _loops(4, 2, 8, injection=True, fewest=1),
    "looped 2x4, halting": Model(
        2,
        {"kind": "looped", "loops": 4, "fewest": 1, "injection": True, "halt": {"threshold": 0.9}},
        tuple({"halt": {"threshold": threshold}} for threshold in (0.9, 0.5, 1.0)),
    ),
    "universal 2x4, act": Model(2, {"kind": "universal", "most": 4}, ({}, {"most": 8})),
    "universal 2x4, ponder": Model(2, {"kind": "universal", "most": 4, "halting": "ponder"}, ({}, {"most": 8})),
}


def main(argv: Sequence[str]) -> int:
    """Train and ask what `argv` names; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "hops", OPTIONS, EXAMPLES)
        return 0
    console, names, settings = Console(), _chosen(arguments), _settings(arguments)
    target = arguments.path("json")
    found = _kept(target, settings)
    cells = [(name, seed) for seed in range(settings["seeds"]) for name in names]
    missing = [cell for cell in cells if f"{cell[0]} | {cell[1]}" not in found]
    command = shlex.join(["uv", "run", "apps/bench", "hops", *argv])
    began = time.monotonic()
    for done, (name, seed) in enumerate(missing):
        found[f"{name} | {seed}"] = cell(MODELS[name], seed, settings)
        if target is not None:
            results.write(target, command, {"settings": settings, "cells": found})
        spent = time.monotonic() - began
        left = spent / (done + 1) * (len(missing) - done - 1)
        console.say(f"{name}, seed {seed}: {done + 1} of {len(missing)} in {duration(spent)}; {duration(left)} left")
    shown = {key: entry for key, entry in found.items() if key.rpartition(" | ")[0] in names}
    console.say("\n" + hops_report.markdown(shown, settings))
    plot = arguments.path("plot")
    if plot is not None:
        hops_report.draw(plot, shown, settings)
        console.say(f"\nplot: {plot}")
    return 0


def _chosen(arguments: Arguments) -> list[str]:
    text = arguments.options.get("only")
    if not isinstance(text, str):
        return list(MODELS)
    # names have commas of their own
    names, rest = [], text.strip()
    while rest:
        name = max((name for name in MODELS if rest == name or rest.startswith(f"{name},")), key=len, default=None)
        if name is None:
            raise BadRequest(f"--only: no model begins {rest!r}; there are {'; '.join(MODELS)}")
        names.append(name)
        rest = rest[len(name) + 1 :].strip()
    return names


def _settings(arguments: Arguments) -> dict[str, Any]:
    settings = {
        "seeds": arguments.whole("seeds", 3),
        "train_steps": arguments.whole("train-steps", 1200),
        "steps": arguments.whole("steps", 4),
        "nodes": arguments.whole("nodes", 8),
    }
    if settings["nodes"] + 8 * settings["steps"] > CONTEXT:
        raise BadRequest(f"--steps: rows of {settings['nodes']} nodes and 8 queries would exceed {CONTEXT} tokens")
    return settings


def _kept(target: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The cells that the file has already. Raises BadRequest where they belong to other settings."""
    if target is None or not target.exists():
        return {}
    document = files.read_json(target)
    there = document.get("settings")
    for key in ("train_steps", "steps", "nodes"):
        if not isinstance(there, dict) or there.get(key) != settings[key]:
            raise BadRequest(f"{target}: was measured with other {key.replace('_', '-')}; give another file")
    cells = document.get("cells")
    return dict(cells) if isinstance(cells, dict) else {}


def config_of(model: Model, task: Hops) -> tinycore.ModelConfig:
    """The model's config."""
    layer = {
        "repeat": model.layers,
        "mixer": {"kind": "attention", "heads": HEADS},
        "ffn": {"kind": "swiglu", "hidden": HIDDEN},
    }
    return tinycore.ModelConfig.from_dict(
        {"vocab_size": task.vocab_size, "dim": DIM, "max_seq_len": CONTEXT, "layers": [layer], "depth": model.depth}
    )


def cell(model: Model, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train one model and ask it. Raises TrainingFailed where the loss is not finite."""
    task = Hops(settings["nodes"], settings["steps"])
    config = config_of(model, task)
    torch.manual_seed(seed)
    net, draw = tinycore.build(config), np.random.default_rng([seed, 1])
    optimizer, total = adamw(net, RATE, (0.9, 0.98)), settings["train_steps"]
    loss, began = math.nan, time.monotonic()
    for step in range(1, total + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / WARMUP, max(0.02, (total - step) / (DECAY * total)))
        tokens, answers = map(torch.from_numpy, task.batch(ROWS, draw))
        losses, _ = next(tinycore.objectives.of(config)(net, tokens, answers))
        whole = torch.stack([value / count.clamp(min=1) for value, count in losses.values()]).sum()
        optimizer.zero_grad()
        whole.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        loss = float(losses["lm"][0].detach() / losses["lm"][1])
        if not math.isfinite(loss):
            raise TrainingFailed(f"the loss at step {step} is {loss}")
    count = tinycore.count(config)
    return {
        "parameters": count.parameters,
        "flops_per_token": sum(count.forward_flops(task.length).values()),
        "seconds": time.monotonic() - began,
        "loss": loss,
        "asked": {_named(changes): ask(net, task, changes) for changes in model.asked},
    }


def _named(changes: dict[str, Any]) -> str:
    parts = {key: value for key, value in changes.items() if not isinstance(value, dict)}
    inner = {key: value for found in changes.values() if isinstance(found, dict) for key, value in found.items()}
    return ", ".join(f"{key} {value}" for key, value in {**parts, **inner}.items()) or "as trained"


@torch.no_grad()
def ask(net: tinycore.Decoder, task: Hops, changes: dict[str, Any]) -> dict[str, Any]:
    """Exact answers, and steps taken where the model decides that, by number of lookups."""
    plain = net.config.settled().to_dict()
    for key, value in changes.items():
        plain["depth"][key] = {**plain["depth"][key], **value} if isinstance(value, dict) else value
    asked = tinycore.build(tinycore.ModelConfig.from_dict(plain))
    asked.load_state_dict(net.state_dict())
    longer = replace(task, steps=LONGER * task.steps, queries=1)
    tokens, answers = map(torch.from_numpy, longer.batch(ASKED, np.random.default_rng(7)))
    out = asked.eval()(tokens)
    right = (out.logits.argmax(-1) == answers)[:, -longer.steps :]
    found: dict[str, Any] = {"accuracy": right.double().mean(0).tolist()}
    if "steps" in out.values:
        found["steps_taken"] = out.values["steps"][:, -longer.steps :].double().mean(0).tolist()
    return found
