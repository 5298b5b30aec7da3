"""`uv run apps/bench train`: training tokens/s and memory beside `transformers.LlamaForCausalLM` of the same shape and weights.

One step of both is the same work: forward, backward, gradient clipping, fused AdamW, on the same tokens of the embedded
corpus, each row one document, since the peer's usual use packs without a mask. They take turns in one process (memory:
each in its own), each with the allocator as its trainer sets it (apps/common/allocator.py). Before any time is printed,
both must give the same loss in float32. `compiled` is what each offers: `torch.compile` of the whole model for the peer,
`train.compile` (of the layers) for ours.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import tinycore
from apps.bench import peer, results
from apps.bench.rounds import alternate, ratio, spread
from apps.common import allocator, optimization, recipes, speed
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console, size
from apps.common.data import Prepared, prepare
from apps.common.data_config import EmbeddedSource
from apps.common.errors import TrainingFailed
from apps.common.markdown import table
from apps.common.process_memory import peak_bytes
from apps.common.recipe import Recipe
from tinydata import Loader

OPTIONS = {
    "recipe": Option("recipe to train, a Llama (default: brandon-10m)", "NAME|FILE"),
    "batch": Option("sequences a step (default: 8)", "N"),
    "rounds": Option("steps of each that are timed (default: 7)", "N"),
    "skip-compiled": Option("leave the compiled steps out"),
    "skip-memory": Option("leave out the processes that measure peak memory"),
    "json": Option("write the figures, with the machine they were measured on, to a file", "FILE"),
    "help": HELP,
}
CPU = torch.device("cpu")
Step = Callable[[], float]


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for and print it; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    console = Console()
    if "help" in arguments.options:
        console.say(__doc__ or "")
        console.table({f"--{name} {option.value or ''}": option.help for name, option in OPTIONS.items()})
        return 0
    name = arguments.text("recipe", "brandon-10m")
    rows, rounds = arguments.whole("batch", 8), arguments.whole("rounds", 7)
    recipe = _small(recipes.load(name))
    tokens, targets = _batch(recipe, prepare(recipe, console), rows)
    found = _measure(recipe, tokens, targets, rounds, "skip-compiled" not in arguments.options, console)
    found["memory_bytes"] = {} if "skip-memory" in arguments.options else _memory(recipe, tokens, targets)
    found = {"recipe": name, "batch": rows, "length": tokens.shape[1], **found}
    _show(found, console)
    target = arguments.path("json")
    if target is not None:
        results.write(target, f"uv run apps/bench train --recipe {name} --batch {rows} --rounds {rounds}", found)
        console.say(f"\nwritten to {target}")
    return 0


def _small(recipe: Recipe) -> Recipe:
    """The recipe on a small part of the embedded corpus, which is prepared in seconds."""
    data = dataclasses.replace(recipe.data, sources=(EmbeddedSource(documents=2000),))
    return dataclasses.replace(recipe, data=data)


def _batch(recipe: Recipe, prepared: Prepared, rows: int) -> tuple[Tensor, Tensor]:
    """tokens and targets (B, T) of one batch, rows as single documents; the last position of a row learns nothing."""
    loader = Loader(prepared.train, recipe.data.positions, rows, seed=0, prefetch=0)
    tokens = torch.from_numpy(next(iter(loader)).tokens)
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = tokens[:, 1:]
    return tokens, targets


def _measure(
    recipe: Recipe, tokens: Tensor, targets: Tensor, rounds: int, compiled: bool, console: Console
) -> dict[str, Any]:
    where = {side: _sides(recipe)[side] for side in ("peer", "ours")}
    steps = {f"{side} fp32": _step(side, recipe, model, tokens, targets, "fp32") for side, model in where.items()}
    losses = {name: step() for name, step in steps.items()}
    if not math.isclose(*losses.values(), rel_tol=1e-4):
        raise TrainingFailed(f"the first losses differ, so no time would mean anything: {losses}")
    steps |= {f"{side} bf16": _step(side, recipe, model, tokens, targets, "bf16") for side, model in where.items()}
    console.say(f"first loss {losses['ours fp32']:.6f} (ours), {losses['peer fp32']:.6f} (peer)")
    seconds = alternate(steps, rounds, tell=lambda line: console.say(f"eager: {line}"))
    compile_seconds: dict[str, float] = {}
    if compiled:
        fast = {}
        for side, model in _sides(recipe).items():
            fast[f"{side} compiled"] = _step(side, recipe, model, tokens, targets, "bf16", compiled=True)
            start = time.perf_counter()
            fast[f"{side} compiled"]()
            compile_seconds[side] = time.perf_counter() - start
        seconds |= alternate(fast, rounds, tell=lambda line: console.say(f"compiled: {line}"))
    count = tokens.numel()
    flops = tinycore.count(recipe.model).flops_per_token(tokens.shape[1])
    peaks = {bits: speed.Peak(CPU, bits).flops for bits in ("fp32", "bf16")}
    rates = {name: spread([count / each for each in taken]) for name, taken in seconds.items()}
    ratios = {
        "float32": ratio(seconds["peer fp32"], seconds["ours fp32"]),
        "bf16": ratio(seconds["peer bf16"], seconds["ours bf16"]),
        "our default (bf16) against its default (float32)": ratio(seconds["peer fp32"], seconds["ours bf16"]),
    }
    if compiled:
        ratios["compiled, bf16"] = ratio(seconds["peer compiled"], seconds["ours compiled"])
    return {
        "tokens_per_second": {name: rate.to_dict() for name, rate in rates.items()},
        "ratios": {name: value.to_dict() for name, value in ratios.items()},
        "mfu": {
            name: rate.median * flops / peaks["fp32" if "fp32" in name else "bf16"] for name, rate in rates.items()
        },
        "product_flops_per_second": peaks,
        "flops_per_token": flops,
        "compile_seconds": compile_seconds,
    }


def _sides(recipe: Recipe) -> dict[str, nn.Module]:
    """Our model of the recipe and the peer with its weights."""
    torch.manual_seed(0)
    ours = tinycore.build(recipe.model)
    return {"peer": peer.build(ours), "ours": ours}


def _step(
    side: str, recipe: Recipe, model: nn.Module, tokens: Tensor, targets: Tensor, bits: str, compiled: bool = False
) -> Step:
    """A call that makes one optimizer step and returns its loss."""
    if side == "ours":
        optimizer = optimization.optimizer(recipe.optim, model)
        if compiled:
            for layer in model.get_submodule("layers").children():
                layer.compile(dynamic=False)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    whole: Any = torch.compile(model, dynamic=False) if compiled and side == "peer" else model
    model.train()

    # each as its user runs it: our trainer changes the C library's thresholds, the peer's does not
    prepare_memory = allocator.keep_freed_memory if side == "ours" else allocator.as_usual

    def step() -> float:
        prepare_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bits == "bf16"):
            if side == "ours":
                losses, _ = next(tinycore.objectives.next_token(whole, tokens, targets))
                loss = torch.stack([total / count for total, count in losses.values()]).sum()
            else:
                # they shift labels themselves: given the tokens they learn the same targets
                loss = whole(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _memory(recipe: Recipe, tokens: Tensor, targets: Tensor) -> dict[str, dict[str, int]]:
    return {
        f"{side} {bits}": _peak(recipe, tokens, targets, side, bits)
        for bits in ("fp32", "bf16")
        for side in ("peer", "ours")
    }


def _peak(recipe: Recipe, tokens: Tensor, targets: Tensor, side: str, bits: str) -> dict[str, int]:
    """Most bytes that a process of its own held while it trained `side` for three steps, and before it began to."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    job = (recipes.to_dict(recipe), tokens.numpy(), targets.numpy(), side, bits, queue)
    process = context.Process(target=_train_alone, args=job)
    process.start()
    try:
        return json.loads(queue.get(timeout=900))
    finally:
        process.join(30)
        process.kill()


def _train_alone(mapping: dict[str, Any], tokens: Any, targets: Any, side: str, bits: str, queue: Any) -> None:
    recipe = recipes.from_dict(mapping)
    ours = tinycore.build(recipe.model)
    model = ours if side == "ours" else peer.build(ours)  # which alone imports transformers
    del ours
    before = peak_bytes()
    step = _step(side, recipe, model, torch.from_numpy(tokens), torch.from_numpy(targets), bits)
    for _ in range(3):
        step()
    queue.put(json.dumps({"all": peak_bytes(), "before": before}))


def _show(found: dict[str, Any], console: Console) -> None:
    console.head("training", f"{found['recipe']}, {found['batch']} x {found['length']} tokens a step")
    rates, mfu, memory = found["tokens_per_second"], found["mfu"], found["memory_bytes"]
    rows = [
        [
            name,
            f"{rate['median']:,.0f}",
            f"{rate['least']:,.0f} to {rate['most']:,.0f}",
            f"{mfu[name]:.0%}",
            size(memory[name]["all"]) if name in memory else "",
            size(memory[name]["all"] - memory[name]["before"]) if name in memory else "",
        ]
        for name, rate in rates.items()
    ]
    console.say(table(["", "tokens/s", "range", "MFU", "peak memory", "of it training"], rows))
    peaks = found["product_flops_per_second"]
    console.say(
        f"\nMFU: share of a square product's rate measured in this run, {peaks['fp32'] / 1e12:.2f} (float32) and "
        f"{peaks['bf16'] / 1e12:.2f} TFLOP/s (bf16); attention counted in full"
    )
    rows = [
        [name, f"{r['median']:.2f}x", f"{r['least']:.2f} to {r['most']:.2f}", str(r["n"])]
        for name, r in found["ratios"].items()
    ]
    for bits in ("fp32", "bf16") if memory else ():
        pair = [memory[f"{side} {bits}"] for side in ("peer", "ours")]
        share = pair[1]["all"] / pair[0]["all"]
        net = (pair[1]["all"] - pair[1]["before"]) / (pair[0]["all"] - pair[0]["before"])
        rows.append(
            [f"peak memory, {bits}: ours over the peer's", f"{share:.2f}x", f"without the start {net:.2f}", "1"]
        )
    console.say("\n" + table(["ratio", "median", "range", "n"], rows))
    if found["compile_seconds"]:
        spent = ", ".join(f"{side} {value:.0f} s" for side, value in found["compile_seconds"].items())
        saved = 1 / rates["ours bf16"]["median"] - 1 / rates["ours compiled"]["median"]
        after = found["compile_seconds"]["ours"] / saved / (found["batch"] * found["length"]) if saved > 0 else math.inf
        console.say(f"\nfirst compiled step: {spent}; ours pays for itself after {after:,.0f} steps of this size")
