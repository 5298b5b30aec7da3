"""Does it fit? The memory of a training process before it is started, and the largest micro-batch of a budget.

    total = tensors at their fullest moment + allocator + runtime

Tensors are tinycore's closed form (`tinycore.count(config).memory`). The other two are no matter of the model:

runtime    what interpreter, torch and libraries hold before the model. On this machine's CPU it is measured when it is
           asked for, after two steps of a toy model, which load what a step loads. On a GPU the CUDA context.
allocator  memory that lies free between tensors. glibc's heap keeps what one tensor leaves and seldom finds another that
           fits in, so that a CPU process holds more than its tensors ever take at one time: a measured share of the
           activations and a measured constant (docs/fit.md), the only part of the prediction that is not derived.

The prepared data is memory-mapped: its pages are the system's to take back, and are not counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

import tinycore
from apps.common import freezing, process_memory
from apps.common.console import size
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.recipe import M3, DeepMomentum, DeltaGD, Muon, Recipe
from tinycore.recompute import Policy

if TYPE_CHECKING:
    from apps.common.command_line import Arguments

# measured by `apps/bench memory` with glibc 2.36: what its heap leaves empty, as a share of the activations and, from the
# temporaries whose size is that of a block and not of the micro-batch, in bytes
HEAP_SHARE, HEAP_BYTES = 0.75, 100 * 2**20
# not measured here: what PyTorch's CUDA allocator rounds up and splits, and a context with cuBLAS
CUDA_SHARE = 0.2
CUDA_RUNTIME = 600 * 2**20
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Budget:
    """Memory a process may take: bytes, and how the user wrote it."""

    bytes: int
    text: str


@dataclass(frozen=True)
class Place:
    """Where a process would train: "cpu", "cuda" or "mps", the precision there, what it holds before a model."""

    device: str
    precision: str
    runtime: int

    @property
    def product_bytes(self) -> int:
        return 4 if self.precision == "fp32" else 2

    def allocator(self, activations: int) -> int:
        """Bytes that lie free between tensors while there are so many bytes of activations."""
        if self.device == "cpu":
            return int(HEAP_SHARE * activations) + HEAP_BYTES
        return int(CUDA_SHARE * activations)


def parse(text: str, option: str = "--memory") -> Budget:
    """A size such as 8GB (powers of ten) or 6GiB (of two). Raises BadRequest."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]*)?|\.[0-9]+) ?([KMGT]i?B)", text.strip(), re.IGNORECASE)
    found = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if not 0 < found < 2**63:
        raise BadRequest(f"{option}: {text!r} is not a size such as 8GB, 6GiB or 500MB")
    return Budget(found, text.strip())


def read(arguments: Arguments) -> Budget | None:
    """The budget in `arguments`. Raises BadRequest, also where they choose the micro-batch as well."""
    if "memory" not in arguments.options:
        return None
    if any(override.path == ("train", "micro_batch") for override in arguments.overrides):
        raise BadRequest("--memory chooses train.micro_batch; give one of them")
    return parse(arguments.text("memory", ""))


def predict(recipe: Recipe, place: Place, micro_batch: int, processes: int = 1) -> dict[str, int]:
    """Bytes of one of `processes` processes by kind, "total" last, training `recipe` at `micro_batch`."""
    accumulated = micro_batch * processes < recipe.train.batch_size  # the largest of the schedule
    counts = tinycore.count(recipe.model)
    length, again, trained = recipe.data.positions, recipe.train.policy, freezing.trained(recipe)
    found = counts.memory(micro_batch, length, place.product_bytes, accumulated, place.device, again, trained)
    parts = {
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer - _spared(recipe),
        **({} if recipe.train.ema is None else {"average": 4 * trained}),
        "activations": found.activations,
        "temporaries": found.temporaries,
        "allocator": place.allocator(found.activations),
        "runtime": place.runtime,
    }
    return {**parts, "total": sum(parts.values())}


def _spared(recipe: Recipe) -> int:
    """Bytes of state that the optimizer does not have, of AdamW's two moments: Muon has one of a hidden matrix, M3 four or
    five, so that it has more; a deep memory and the delta rule's sums come with one."""
    config = recipe.optim
    if not isinstance(config, Muon | DeltaGD):
        return 0
    with torch.device("meta"):
        model = tinycore.build(recipe.model)
    freezing.freeze(model, recipe.train.freeze)
    hidden = [role for role in tinycore.optim.roles(model) if role.kind == "hidden"]
    elements = sum(role.parameter.numel() for role in hidden)
    if isinstance(config, DeltaGD):
        heard = tinycore.optim.delta_gd(model, config.learning_rate).met
        return 4 * sum(parameter.numel() - met.total.numel() for parameter, met in heard.items())
    if isinstance(config, DeepMomentum):
        sides = sum(sum(tinycore.optim.deep_momentum_sides(role.parameter, role.parts)) for role in hidden)
        return 4 * (elements - 2 * config.hidden * sides)
    kept = 1 if not isinstance(config, M3) else 4 if config.second_moment is None else 5
    return 4 * (2 - kept) * elements


def largest(recipe: Recipe, place: Place, budget: Budget, processes: int = 1) -> int:
    """The most sequences a forward whose prediction fits `budget`, dividing the batch's share of one process.

    Raises BadRequest where one sequence does not fit, with what would; ConfigError for a batch that does not divide.
    """
    free = replace(recipe, train=replace(recipe.train, micro_batch=None))
    free.micro_batch(processes)  # refuses what does not divide
    rows = recipe.share_of_batches(processes)
    for micro_batch in range(rows, 0, -1):
        if rows % micro_batch == 0 and predict(recipe, place, micro_batch, processes)["total"] <= budget.bytes:
            return micro_batch
    raise BadRequest(
        f"--memory {budget.text}: one sequence of {recipe.data.positions} tokens needs "
        f"{_rounded_up(predict(recipe, place, 1, processes)['total'])}; {_remedy(recipe, place, budget, processes)}"
    )


def settled(recipe: Recipe, place: Place, room: int | None, budget: Budget | None, processes: int = 1) -> Recipe:
    """`recipe` with a policy in place of `recompute: auto`: the one that computes least again of those whose prediction fits.

    With a budget, which chooses the micro-batch too, one sequence has to fit it: a smaller micro-batch costs no computation.
    Without, the recipe's micro-batch has to fit `room` bytes; if that is not known, nothing is computed again. If none fits,
    the policy that needs least.
    """
    if recipe.train.recompute != "auto":
        return recipe
    candidates = [replace(recipe, train=replace(recipe.train, recompute=policy)) for policy in policies(recipe)]
    limit = room if budget is None else budget.bytes
    if limit is None:
        return candidates[0]
    rows = recipe.micro_batch(processes) if budget is None else 1
    needed = [predict(candidate, place, rows, processes)["total"] for candidate in candidates]
    fitting = (candidate for candidate, total in zip(candidates, needed, strict=True) if total <= limit)
    return next(fitting, candidates[needed.index(min(needed))])


def policies(recipe: Recipe) -> tuple[Policy, ...]:
    """What may be computed again in the model, least first; `low_rank` keeps what only low-rank linears have."""
    low_rank = recipe.model.cost(recipe.data.positions).low_rank > 0
    return ("none", "low_rank", "layers") if low_rank else ("none", "layers")


def within(recipe: Recipe, place: Place, budget: Budget, processes: int = 1) -> Recipe:
    """`recipe` with the largest micro-batch that fits `budget`; raises as `largest` does."""
    return replace(recipe, train=replace(recipe.train, micro_batch=largest(recipe, place, budget, processes)))


def _remedy(recipe: Recipe, place: Place, budget: Budget, processes: int) -> str:
    """What would fit: a shorter sequence if there is one, the budget otherwise."""
    data = recipe.data
    if not isinstance(data, TextData):
        return "give --memory that much"

    def fits(length: int) -> bool:
        shorter = replace(recipe, data=replace(data, sequence_length=length))
        return predict(shorter, place, 1, processes)["total"] <= budget.bytes

    length = 1 << (recipe.data.positions.bit_length() - 1)
    while length >= 2 and not (length < recipe.data.positions and fits(length)):
        length //= 2
    shorter = f" or --data.sequence_length {length}" if length >= 2 else "; no sequence is short enough for less"
    return f"give --memory that much{shorter}"


def _rounded_up(count: int) -> str:
    """A size as --memory takes it, not below `count`."""
    unit, name = (10**9, "GB") if count >= 10**9 else (10**6, "MB")
    tenths = -(-count * 10 // unit)
    return f"{tenths / 10:g}{name}"


def said(parts: dict[str, int], micro_batch: int) -> str:
    """The prediction in one line."""
    kinds = ", ".join(f"{name} {size(value)}" for name, value in parts.items() if name != "total")
    return f"micro-batch {micro_batch}: predicted {size(parts['total'])} a process ({kinds})"


def shortage(recipe: Recipe, place: Place, micro_batch: int, processes: int, there: int | None) -> str | None:
    """One line if the tensors of each of `processes` processes of this machine exceed its share of `there` free bytes."""
    needed = predict(recipe, replace(place, runtime=0), micro_batch, processes)["total"]
    if there is None or needed <= there:
        return None
    return (
        f"training is predicted to need {size(needed)} a process beside what it holds already, and {size(there)} "
        f"are free; choose the micro-batch with --memory"
    )


def place(device: str, precision: str) -> Place:
    """This machine's `device`, with its runtime measured (CPU) or assumed (a GPU's context)."""
    return Place(device, precision, process_memory.runtime_bytes(precision) if device == "cpu" else CUDA_RUNTIME)
