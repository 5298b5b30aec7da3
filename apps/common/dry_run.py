"""`--dry-run`: everything that follows from a request, printed with its rule, and nothing done.

Parameters and FLOPs are tinycore's closed forms; memory is predicted for one process (apps/common/fit.py); time and
cost are asked for with --hardware (apps/common/forecast.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import tinycore
from apps.common import fit, forecast, freezing, hardware, phases, precision, process_memory, processes
from apps.common.command_line import Request
from apps.common.console import Console, short, size
from apps.common.layer_map import layer_map
from apps.common.recipe import Cosine, Recipe, WarmupStableDecay

BYTES_PER_PARAMETER = 12  # in a checkpoint: float32 weight and two moments


@dataclass(frozen=True)
class Plan:
    """The derived values of a request. FLOPs are per token, forward and backward; bytes are per process."""

    parameters: int
    trained_parameters: int
    embedding_parameters: int
    processes: int
    device: str
    precision: str
    micro_batch: int
    recompute: str
    accumulation: int
    tokens_per_step: int
    steps: int
    tokens: int
    flops: dict[str, float]
    total_flops: float
    memory: dict[str, int]
    checkpoint_bytes: int
    state_bytes: int
    layer_map: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `--json` prints it."""
        return dict(vars(self))


def place(request: Request) -> fit.Place:
    """Where `request` would train: on the hardware it asks about, or on this machine."""
    requested = request.recipe.train.precision
    if request.forecast is not None:
        return forecast.place_on(request.forecast, requested)
    where = processes.device_type(request.device, request.processes)
    return fit.place(where, precision.resolve(requested, torch.device(where)))


def _room(request: Request, where: fit.Place) -> int | None:
    """Bytes that a process may take in all where it would train."""
    card = None if request.forecast is None else hardware.named(request.forecast.hardware)
    if card is not None:
        return card.memory
    free = process_memory.free_bytes(torch.device(where.device), request.processes)
    return None if free is None else free + where.runtime


def plan(recipe: Recipe, where: fit.Place, world: int = 1) -> Plan:
    """Every value derived from `recipe` for `world` processes. Raises ConfigError where it cannot run."""
    counts = tinycore.count(recipe.model)
    length = recipe.data.positions
    micro_batch = recipe.micro_batch(world)
    tokens_per_step = recipe.train.batch_size * length
    return Plan(
        parameters=counts.parameters,
        trained_parameters=freezing.trained(recipe),
        embedding_parameters=counts.embedding_parameters,
        processes=world,
        device=where.device,
        precision=where.precision,
        micro_batch=micro_batch,
        recompute=recipe.train.recompute,
        accumulation=recipe.accumulation(world),
        tokens_per_step=tokens_per_step,
        steps=recipe.train.steps,
        tokens=phases.sequences(recipe) * length,
        flops=counts.training_flops(length),
        total_flops=phases.flops(recipe),
        memory=fit.predict(recipe, where, micro_batch, world),
        checkpoint_bytes=(BYTES_PER_PARAMETER + 4 * (recipe.train.ema is not None)) * counts.parameters,
        state_bytes=counts.state_bytes(recipe.model.max_seq_len),
        layer_map=None if (found := layer_map(recipe.model)) is None else found.text,
    )


def show(request: Request, console: Console) -> int:
    """Print the plan of `request`, as a result too with `--json`; the exit status 0."""
    where = place(request)
    recipe = fit.settled(request.recipe, where, _room(request, where), request.memory, request.processes)
    if request.memory is not None:
        recipe = fit.within(recipe, where, request.memory, request.processes)
    found = plan(recipe, where, request.processes)
    model, length = recipe.model, recipe.data.positions
    share = found.embedding_parameters / found.parameters
    layers, calls = len(model.flat_layers()), len(model.call_sites())

    console.head(f"recipe {request.recipe_name}", recipe.description)
    console.table(
        {
            "parameters": f"{found.parameters:,}, of which {share:.0%} embed {model.vocab_size:,} tokens",
            **_trained(found),
            "depth": f"{layers} layers" + (f", {calls} calls" if calls != layers else ""),
            **_layers(model),
            "width": f"{model.dim} channels, context {model.max_seq_len} tokens",
            **_decoding(model, found.state_bytes),
        }
    )
    console.head(
        "training",
        f"{found.processes} process{'es' * (found.processes > 1)} on {found.device}, {found.precision}",
    )
    console.table(
        {
            "batch": f"{recipe.train.batch_size} sequences of {length} = {found.tokens_per_step:,} tokens a step",
            "micro-batch": f"{found.micro_batch} sequences a forward, accumulated {found.accumulation} times "
            f"({found.micro_batch} x {found.accumulation} x {found.processes} = {recipe.train.batch_size})",
            **({"first": said} if (said := phases.said(recipe)) else {}),
            "steps": f"{found.steps:,}",
            "tokens": f"{short(found.tokens)}, {found.tokens / found.parameters:.1f} a parameter",
            "learning rate": _learning_rate(recipe),
            "checkpoints": f"{size(found.checkpoint_bytes)} each, at most {recipe.train.keep + 1} kept",
        }
    )
    if request.derived:
        console.head("derived", "each value of the recipe that was not given, and its rule")
        console.table({f"{entry.key} {entry.value}": entry.rule for entry in request.derived})
    if request.minutes is not None:
        console.say(
            f"\nin {request.minutes:g} minutes: as many steps as the speed measured at the start allows, not these"
        )
    per_token = sum(found.flops.values())
    console.head("FLOPs", _share_forward(recipe))
    console.table(
        {name.replace("_", " "): f"{short(value):>6}  {value / per_token:4.0%}" for name, value in found.flops.items()}
        | {"all": f"{short(per_token):>6}  100%  ({short(found.total_flops)} for the whole run)"}
    )
    again = recipe.train.recompute
    console.head("memory", "predicted, per process" + (f"; recompute: {again}" if again != "none" else ""))
    console.table({name: f"{size(value):>10}" for name, value in found.memory.items()})
    asked = None
    if request.forecast is not None:
        asked = forecast.forecast(
            request.forecast,
            recipe,
            where,
            needed=found.memory["total"],
            total_flops=found.total_flops,
            tokens=found.tokens,
            devices=request.processes,
        )
        console.head(f"on {asked.hardware}", "predicted")
        console.table(asked.rows())
    console.say("\nnothing was done; leave --dry-run out to start")
    derived = [vars(entry) for entry in request.derived]
    answer = {} if asked is None else {"forecast": forecast.to_dict(asked)}
    console.result({"recipe": request.recipe_name, **found.to_dict(), "derived": derived, **answer})
    return 0


def _share_forward(recipe: Recipe) -> str:
    depth = recipe.model.depth
    if not depth.recurs:
        return "matrix products, per token: a third forward, two thirds backward"
    return (
        f"matrix products, per token: {depth.passes} supervision steps, of whose every one the last cycle goes backward"
    )


def _trained(found: Plan) -> dict[str, str]:
    """A row about parameters where not all of them are trained."""
    frozen = found.parameters - found.trained_parameters
    return {"trained": f"{found.trained_parameters:,}, train.freeze keeps {frozen:,} as they are"} if frozen else {}


def _layers(model: tinycore.ModelConfig) -> dict[str, str]:
    """Rows about the layers of a model that has several kinds of them."""
    found = layer_map(model)
    if found is None:
        return {}
    legend = ", ".join(f"{letter} {words}" for letter, words in found.legend.items())
    return {"layers": f"{found.text}  ({found.ratio})", "": legend}


def _decoding(model: tinycore.ModelConfig, state_bytes: int) -> dict[str, str]:
    if not model.causal:
        return {"prediction": "in place, from both sides"}
    return {"decoding state": f"{size(state_bytes)} a row at full context{_growth(model)}"}


def _growth(model: tinycore.ModelConfig) -> str:
    """How the decoding state of a model with several kinds of layers gets there."""
    if layer_map(model) is None:
        return ""
    counts, quarter = tinycore.count(model), max(1, model.max_seq_len // 4)
    return (
        f", {size(counts.state_bytes(quarter))} after {quarter:,} tokens, {size(counts.state_bytes(1))} after the first"
    )


def _learning_rate(recipe: Recipe) -> str:
    schedule, steps, peak = recipe.optim.schedule, recipe.train.steps, recipe.optim.learning_rate
    warm = f"0 to {peak:g} in {schedule.warmup} steps"
    base = recipe.optim.base_width
    if base is not None and base != recipe.model.dim:
        warm = f"found at width {base}, of matrices for {recipe.model.dim}: {warm}"
    if isinstance(schedule, WarmupStableDecay):
        decay = round(schedule.decay * steps)
        return f"{warm}, constant, down to {peak * schedule.final:g} in the last {decay:,}"
    if isinstance(schedule, Cosine):
        return f"{warm}, down a cosine to {peak * schedule.final:g} at step {steps:,}"
    return f"{warm}, then constant"
