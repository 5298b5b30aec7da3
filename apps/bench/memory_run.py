"""One recipe trained and measured in this process, as `apps/bench memory` starts it: a job on stdin, figures on stdout."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

import tinycore
from apps.bench.activations import saved_bytes
from apps.common import fit, optimization, precision, process_memory, recipes
from apps.common.command_line import Request
from apps.common.console import Console
from apps.common.data import prepare
from apps.common.recipe import Recipe
from apps.common.validation import to_device
from apps.pretrain import session
from tinycore.objectives import next_token
from tinydata import Batch, Loader

CPU = torch.device("cpu")


def measure(recipe: Recipe, out: Path, timed: int = 0) -> dict[str, Any]:
    """Train `recipe` into `out` and return predicted and measured bytes by kind, and the spread of the milliseconds that
    `timed` steps of one micro-batch take."""
    bits = precision.resolve(recipe.train.precision, CPU)
    where = fit.place("cpu", bits)
    micro_batch = recipe.micro_batch()
    quiet = Console(main_process=False)
    session.pretrain(Request(recipes.to_dict(recipe), recipe, "measured", out=out, device="cpu"), quiet)
    total = process_memory.peak_bytes()

    model = tinycore.build(recipe.model)
    model.recompute(recipe.train.policy)
    found, milliseconds = _step_bytes(recipe, model, bits, timed)
    kinds = {"weights": _bytes(model.parameters()), **found}
    kinds["runtime"] = where.runtime
    kinds["allocator"] = total - sum(kinds.values())
    predicted = fit.predict(recipe, where, micro_batch)
    return {
        "micro_batch": micro_batch,
        "length": recipe.data.positions,
        "precision": bits,
        "predicted": predicted,
        "measured": {**{kind: kinds[kind] for kind in predicted if kind != "total"}, "total": total},
        **({"milliseconds": _spread(milliseconds)} if timed else {}),
    }


def _spread(times: list[float]) -> dict[str, Any]:
    """The median of `times` and the fifths around it."""
    fifths = statistics.quantiles(times, n=5, method="inclusive") if len(times) > 1 else times * 4
    return {"p20": fifths[0], "p50": statistics.median(times), "p80": fifths[3], "steps": len(times)}


def _step_bytes(recipe: Recipe, model: nn.Module, bits: str, timed: int) -> tuple[dict[str, int], list[float]]:
    """Bytes of gradients, optimizer state, activations and temporaries of a micro-batch of `recipe`, and the milliseconds of
    `timed` steps with it."""
    prepared = prepare(recipe, Console(main_process=False))
    batch = next(iter(Loader(prepared.train, recipe.data.positions, recipe.micro_batch(), seed=0, prefetch=0)))
    optimizer = optimization.optimizer(recipe.optim, model)
    _loss(model, batch, bits).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    found = {"gradients": _bytes(gradients)}
    optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    found["optimizer"] = _bytes(state)
    if recipe.accumulation() == 1:  # nothing is there yet when a step's only micro-batch begins
        found["gradients"] = 0
        optimizer.zero_grad(set_to_none=True)
    found["activations"] = saved_bytes(model, lambda: _loss(model, batch, bits))
    with profile(profile_memory=True) as traced:
        _loss(model, batch, bits).backward()
    found["temporaries"] = most_allocated(traced) - found["activations"]
    times = []
    for _ in range(timed):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        _loss(model, batch, bits).backward()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - start))
    return found, times


def most_allocated(traced: profile) -> int:
    """The most bytes of tensors that existed at one time while `traced` recorded, of those that it saw made."""
    results = traced.kineto_results
    if results is None:
        raise RuntimeError("the profiler recorded nothing")
    there = most = 0
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        there += event.nbytes() if event.name() == "[memory]" else 0  # ty: ignore[missing-attribute]
        most = max(most, there)
    return most


def _loss(model: nn.Module, batch: Batch, bits: str) -> Tensor:
    with torch.autocast(CPU.type, torch.bfloat16, enabled=bits == "bf16"):
        losses, _ = next(next_token(model, *to_device(batch, CPU)))
    return torch.stack([total / count.clamp(min=1) for total, count in losses.values()]).sum()


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


if __name__ == "__main__":
    job = json.loads(sys.stdin.read())
    figures = measure(recipes.from_dict(job["recipe"]), Path(job["out"]), job["timed"])
    sys.stdout.write(json.dumps(figures) + "\n")
