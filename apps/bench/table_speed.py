"""Training and decoding speed of every variant of a table beside plain: what `apps/bench depth` and `routing` measure.

The variants of the table in its `speed` shape, freshly initialised, and plain in turns with each, on the same random tokens: a
forward and a backward pass on rows of --length tokens, and greedy decoding of one prompt. Ratios are taken within a round.
The state is that of decoding one row after --length tokens, in closed form.
"""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import tinycore
from apps.bench import blocks, results
from apps.bench.rounds import alternate, ratio, spread
from apps.common import allocator, command_help, variants
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console, duration
from apps.common.errors import BadRequest
from apps.common.markdown import table
from apps.common.variants import PLAIN, Arm

OPTIONS = {
    "only": Option("measure these variants (default: all); plain is always measured", "NAME,NAME"),
    "length": Option("tokens of a row in training (default: 1024)", "N"),
    "tokens": Option("new tokens that are decoded (default: 64)", "N"),
    "rounds": Option("rounds that are timed (default: 5)", "N"),
    "json": Option("write the figures to a file", "FILE"),
    "help": HELP,
}
PROMPT = 32


def run(name: str, recipe: str, about: str, examples: Sequence[tuple[str, str]], argv: Sequence[str]) -> int:
    """Measure what `argv` asks `apps/bench NAME` for of the table `recipe`, print it and write it down; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", about, name, OPTIONS, examples)
        return 0
    settings = {
        "length": arguments.whole("length", 1024),
        "tokens": arguments.whole("tokens", 64),
        "rounds": arguments.whole("rounds", 5),
        "threads": torch.get_num_threads(),
    }
    if settings["length"] < PROMPT + settings["tokens"]:
        raise BadRequest(f"--length: is shorter than a prompt of {PROMPT} and {settings['tokens']} new tokens")
    only, console = arguments.options.get("only"), Console()
    context = variants.as_overrides({"model.max_seq_len": settings["length"], "data.sequence_length": 2}, "--length")
    arms = variants.arms(variants.find(recipe), "speed", only if isinstance(only, str) else None, context)
    allocator.keep_freed_memory()
    found, began = {}, time.monotonic()
    for done, (variant, arm) in enumerate(arms.items(), 1):
        found[variant] = measure(arm, arms[PLAIN], settings)
        spent = time.monotonic() - began
        console.say(
            f"{variant}: {done} of {len(arms)} in {duration(spent)}; {duration(spent / done * (len(arms) - done))} left"
        )
    console.say("\n" + markdown(found, settings))
    target = arguments.path("json")
    if target is not None:
        command = shlex.join(["uv", "run", "apps/bench", name, *argv])
        results.write(target, command, {"settings": settings, "variants": found})
    return 0


def measure(arm: Arm, plain: Arm, settings: dict[str, Any]) -> dict[str, Any]:
    """Counts and speeds of `arm`, beside `plain` in turns."""
    count, length = tinycore.count(arm.recipe.model), settings["length"]
    calls: dict[str, Callable[[], object]] = {}
    for side, each in (("plain", plain), ("variant", arm)):
        model = blocks.built(each)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(each.recipe.model.vocab_size, (1, length + 1), generator=generator)
        calls[f"{side} training"] = blocks.passes(model, tokens, "fp32")["forward_backward"]
        calls[f"{side} decoding"] = functools.partial(decode, model, tokens[0, :PROMPT].tolist(), settings["tokens"])
    seconds = alternate(calls, settings["rounds"])
    work = {"training": length, "decoding": settings["tokens"]}
    return {
        "overrides": arm.overrides,
        "parameters": count.parameters,
        "training_flops_per_token": count.flops_per_token(length),
        "state_bytes": count.state_bytes(length),
        "tokens_per_second": {
            kind: spread([amount / each for each in seconds[f"variant {kind}"]]).to_dict()
            for kind, amount in work.items()
        },
        "ratio": {kind: ratio(seconds[f"plain {kind}"], seconds[f"variant {kind}"]).to_dict() for kind in work},
    }


def decode(model: tinycore.Decoder, prompt: list[int], count: int) -> None:
    """Greedy decoding of `count` tokens."""
    tinycore.generate(model.eval(), [prompt], max_new_tokens=count, temperature=0.0)


def markdown(found: dict[str, Any], settings: dict[str, Any]) -> str:
    """One row for each variant."""
    rows = []
    plain = found[PLAIN]["training_flops_per_token"]
    for name, entry in found.items():
        shown = []
        for kind in ("training", "decoding"):
            times = entry["ratio"][kind]
            shown.append(f"{entry['tokens_per_second'][kind]['median']:,.0f}")
            shown.append(f"{times['median']:.2f} ({times['least']:.2f} to {times['most']:.2f})")
        flops = f"{entry['training_flops_per_token'] / plain:.2f}x"
        rows.append([name, f"{entry['parameters']:,}", flops, *shown, f"{entry['state_bytes'] / 1024:,.0f}"])
    head = [
        "variant",
        "parameters",
        "training FLOPs",
        "training tok/s",
        "x plain",
        "decoding tok/s",
        "x plain",
        "state, KiB",
    ]
    text = (
        f"Rows of {settings['length']} tokens in training, {settings['tokens']} tokens decoded greedily, float32, "
        f"{settings['threads']} threads; median (least to most) of {settings['rounds']} rounds."
    )
    return f"{text}\n\n{table(head, rows)}"
