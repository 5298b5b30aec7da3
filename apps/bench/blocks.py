"""`uv run apps/bench blocks`: every variant of apps/ablate/blocks.yaml beside the plain model, its speed, memory and counts.

A variant and the plain model of its base take turns in one process, on the same random tokens, in rows that are single
documents: a forward pass (evaluation, no gradients) and a forward and a backward pass (training, without the optimizer).
Ratios are taken within a round. `plain` itself is measured beside a second plain model: how far its ratio is from 1 is
what this machine cannot tell apart. Activations are what autograd keeps of a forward pass, predicted in closed form and
counted with its hooks; the peak is the most bytes there are in such a pass of a batch of several (gradients included, weights
not), predicted and seen by torch's profiler; the state is that of decoding one row, in closed form.
"""

from __future__ import annotations

import functools
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tinycore
from apps.bench import results
from apps.bench.activations import peak_bytes, saved_bytes
from apps.bench.rounds import Spread, alternate, ratio, spread
from apps.common import allocator, command_help, files, precision, variants
from apps.common.command_line import HELP, Arguments, Grammar, Option, take_apart
from apps.common.console import Console, duration, short
from apps.common.errors import BadRequest, RunError, TrainingFailed
from apps.common.markdown import table
from apps.common.variants import PLAIN, Arm
from tinycore import ConfigError
from tinycore.config import dump
from tinycore.config import load as load_strictly

OPTIONS = {
    "recipe": Option("table of variants (default: ablate-blocks)", "NAME|FILE"),
    "only": Option("measure these variants (default: all); plain is always measured", "NAME,NAME"),
    "lengths": Option("tokens of a row, one measurement each (default: 512,4096)", "N,N"),
    "tokens": Option("tokens a pass, at least one row (default: 2048)", "N"),
    "rounds": Option("passes of each kind that are timed (default: 5)", "N"),
    "precision": Option(
        "of matrix products (default: bf16 where it is fast)", "auto|bf16|fp32", choices=("auto", "bf16", "fp32")
    ),
    "json": Option("write each variant's figures to a file as soon as it is measured", "FILE"),
    "resume": Option("keep the variants that FILE has, measure the others"),
    "help": HELP,
}
EXAMPLES = (
    ("two variants, short rows", "uv run apps/bench blocks --only qk_norm,window --lengths 512"),
    ("all of them; again after a stop", "uv run apps/bench blocks --json docs/benchmarks/blocks-cpu.json --resume"),
    ("another width and depth", "uv run apps/bench blocks --model.dim 128 --model.layers.0.repeat 4"),
)
MAX_LENGTH = 65_536
PASSES = ("forward", "forward_backward")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class AtLength:
    """What was measured with rows of one length; speeds and ratios by the name of the pass."""

    rows: int
    forward_flops_per_token: float
    state_bytes: int
    predicted_activation_bytes: int
    activation_bytes: int
    predicted_peak_bytes: int
    peak_bytes: int
    tokens_per_second: dict[str, Spread]
    ratio: dict[str, Spread]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One variant's entry of the JSON file."""

    overrides: dict[str, Any]
    parameters: int
    lengths: dict[str, AtLength]


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for, print it and write it down; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS, dotted=True))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "blocks", OPTIONS, EXAMPLES)
        return 0
    settings = _settings(arguments)
    path = variants.find(arguments.text("recipe", variants.DEFAULT))
    # the context is as long as the longest row; a recipe's own length of data has no part in this
    context = variants.as_overrides(
        {"model.max_seq_len": max(settings["lengths"]), "data.sequence_length": 2}, "--lengths"
    )
    only = arguments.options.get("only")
    arms = variants.arms(path, "speed", only if isinstance(only, str) else None, [*context, *arguments.overrides])
    target, console = arguments.path("json"), Console()
    found = _kept(target, settings, arms) if "resume" in arguments.options else {}
    allocator.keep_freed_memory()
    command = shlex.join(["uv", "run", "apps/bench", "blocks", *argv])
    missing = [name for name in arms if name not in found]
    began = time.monotonic()
    for done, name in enumerate(missing):
        console.head(name, arms[name].note)
        found[name] = measure(arms[name], arms[PLAIN], settings, console)
        if target is not None:
            results.write(target, command, {"settings": settings, "variants": dump(found)})
        spent = time.monotonic() - began
        left = spent / (done + 1) * (len(missing) - done - 1)
        console.say(f"{done + 1} of {len(missing)} variants in {duration(spent)}; {duration(left)} left")
    console.say("\n" + markdown(found, settings))
    if target is not None:
        console.say(f"\nresults: {target}")
    return 0


def _settings(arguments: Arguments) -> dict[str, Any]:
    """What decides a figure beside the variant itself."""
    if "resume" in arguments.options and arguments.path("json") is None:
        raise BadRequest("--resume goes on with the figures of --json FILE; give that too")
    return {
        "lengths": _lengths(arguments.text("lengths", "512,4096")),
        "tokens": arguments.whole("tokens", 2048),
        "rounds": arguments.whole("rounds", 5),
        "precision": precision.resolve(arguments.text("precision", "auto"), CPU),
        "threads": torch.get_num_threads(),
        "base": {override.dotted: override.value for override in arguments.overrides},
    }


def _lengths(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    found = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 10]
    if len(found) < len(words) or len(set(found)) < len(found) or not 2 <= min(found) <= max(found) <= MAX_LENGTH:
        raise BadRequest(
            f"--lengths: {text!r} is not a list of different lengths from 2 to {MAX_LENGTH:,}, such as 512,4096"
        )
    return found


def _kept(target: Path | None, settings: dict[str, Any], arms: dict[str, Arm]) -> dict[str, Figures]:
    """The variants that the file has already. Raises BadRequest where their figures belong to other settings."""
    if target is None or not target.exists():
        return {}
    document = files.read_json(target)
    there = document.get("settings")
    if not isinstance(there, dict):
        raise RunError(f"{target}: holds no figures of `apps/bench blocks`; give another file")
    for key, value in settings.items():
        if there.get(key) != value:
            raise BadRequest(
                f"{target}: was measured with {key} {there.get(key)}, not {value}; "
                "give another file, or leave --resume out to measure all anew"
            )
    try:
        found = load_strictly(dict[str, Figures], document.get("variants"), "variants")
    except ConfigError as error:
        raise RunError(f"{target}: {error}; give another file, or leave --resume out to measure all anew") from None
    for name, entry in found.items():
        if name in arms and (
            entry.overrides != arms[name].overrides
            or entry.parameters != tinycore.count(arms[name].recipe.model).parameters
        ):
            raise BadRequest(f"{target}: variant '{name}' was another model; leave --resume out to measure all anew")
        for length in map(str, settings["lengths"]):
            at = entry.lengths.get(length)
            if at is None or not at.tokens_per_second.keys() == at.ratio.keys() == set(PASSES):
                raise RunError(f"{target}: variant '{name}' is not whole; leave --resume out to measure all anew")
    return found


def measure(arm: Arm, plain: Arm, settings: dict[str, Any], console: Console) -> Figures:
    """Counts, speed and memory of `arm`, and its speed beside `plain`, for every length of `settings`."""
    count = tinycore.count(arm.recipe.model)
    bits = settings["precision"]
    found = {}
    for length in settings["lengths"]:
        rows = max(1, settings["tokens"] // length)
        vocabulary = min(each.recipe.model.vocab_size for each in (arm, plain))
        tokens = torch.randint(vocabulary, (rows, length + 1), generator=torch.Generator().manual_seed(0))
        models = {"plain": built(plain), "variant": built(arm)}
        calls = {
            f"{side} {name}": call
            for side, model in models.items()
            for name, call in passes(model, tokens, bits).items()
        }
        memory = count.memory(rows, length, product_bytes=2 if bits == "bf16" else 4)
        kept = saved_bytes(models["variant"], functools.partial(_loss, models["variant"], tokens, bits))
        seconds = alternate(calls, settings["rounds"], tell=functools.partial(_tell, console, length))
        found[str(length)] = AtLength(
            rows=rows,
            forward_flops_per_token=sum(count.forward_flops(length).values()),
            state_bytes=count.state_bytes(length),
            predicted_activation_bytes=memory.activations,
            activation_bytes=kept,
            predicted_peak_bytes=memory.gradients + memory.activations + memory.temporaries,
            peak_bytes=_peak(models["variant"], tokens, bits),
            tokens_per_second={
                name: spread([rows * length / each for each in seconds[f"variant {name}"]]) for name in PASSES
            },
            ratio={name: ratio(seconds[f"plain {name}"], seconds[f"variant {name}"]) for name in PASSES},
        )
    return Figures(overrides=arm.overrides, parameters=count.parameters, lengths=found)


def _peak(model: tinycore.Decoder, tokens: Tensor, bits: str) -> int:
    """The most bytes of gradients and of what a forward and a backward pass allocate, where gradients are added up."""
    model.train()
    _loss(model, tokens, bits).backward()
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    most = gradients + peak_bytes(lambda: _loss(model, tokens, bits).backward())
    model.zero_grad(set_to_none=True)
    return most


def _tell(console: Console, length: int, line: str) -> None:
    console.say(f"  rows of {length} tokens: {line}")


def built(arm: Arm) -> tinycore.Decoder:
    """The model of `arm`, always the same."""
    torch.manual_seed(0)
    return tinycore.build(arm.recipe.model)


def passes(model: tinycore.Decoder, tokens: Tensor, bits: str) -> dict[str, Callable[[], None]]:
    """The two kinds of work that are timed. Raises TrainingFailed, when called, for a loss that is not finite."""

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            _require_finite(_loss(model, tokens, bits))

    def forward_backward() -> None:
        model.train()
        loss = _loss(model, tokens, bits)
        loss.backward()
        model.zero_grad(set_to_none=True)
        _require_finite(loss)

    return dict(zip(PASSES, (forward, forward_backward), strict=True))


def _loss(model: tinycore.Decoder, tokens: Tensor, bits: str) -> Tensor:
    """The loss of predicting each of tokens (B, T + 1) from those before it."""
    with torch.autocast(CPU.type, torch.bfloat16, enabled=bits == "bf16"):
        losses, _ = next(tinycore.objectives.next_token(model, tokens[:, :-1], tokens[:, 1:]))
    return torch.stack([total / count.clamp(min=1) for total, count in losses.values()]).sum()


def _require_finite(loss: Tensor) -> None:
    if not math.isfinite(loss.item()):
        raise TrainingFailed(f"the loss of a fresh model is {loss.item()}: no time of it would mean anything")


def markdown(found: dict[str, Figures], settings: dict[str, Any]) -> str:
    """One table for each length."""
    head = ["variant", "parameters", "FLOPs", "forward tok/s", "x plain", "training tok/s", "x plain"]
    head += ["activations", "measured", "peak", "measured", "state"]
    blocks = []
    for length in settings["lengths"]:
        plain = found[PLAIN].lengths[str(length)]
        rows = []
        for name, entry in found.items():
            at = entry.lengths[str(length)]
            speeds = [
                shown
                for kind in PASSES
                for shown in (f"{at.tokens_per_second[kind].median:,.0f}", at.ratio[kind].shown())
            ]
            bytes = (at.predicted_activation_bytes, at.activation_bytes, at.predicted_peak_bytes, at.peak_bytes)
            kept = [each / at.rows / length / 1024 for each in bytes]
            flops = f"{at.forward_flops_per_token / plain.forward_flops_per_token:.2f}x"
            state = f"{at.state_bytes / 1024:,.0f}"
            rows.append([name, f"{entry.parameters:,}", flops, *speeds, *(f"{value:,.1f}" for value in kept), state])
        blocks.append(
            f"{plain.rows} x {length} tokens, {settings['precision']}, {settings['threads']} threads, median (least to most) "
            f"of {settings['rounds']} rounds. FLOPs: forward, per token, over plain's {short(plain.forward_flops_per_token)}. "
            "Training: forward and backward. Activations and peak: KiB a token, predicted and measured. State: KiB a row after "
            f"{length} tokens."
        )
        blocks.append(table(head, rows))
    return "\n\n".join(blocks)
