"""`--dry-run --hardware NAME [--price P] [--mfu F]`: hours, tokens a second and cost of a run on a card one may not have.

    seconds = FLOPs of the run / (devices x the data sheet's FLOP/s x MFU)

The FLOPs are tinycore's closed form. MFU, the share of the data sheet that training reaches, is an assumption by the
model's width and the card's speed (apps/common/hardware.py) unless `--mfu` gives it; validation, checkpoints and
waiting for data are not in it. `cpu` is this machine, its product rate measured as a run's log measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from apps.common import hardware, precision, process_memory, speed
from apps.common.console import duration, size
from apps.common.errors import BadRequest
from apps.common.fit import CUDA_RUNTIME, Budget, Place, largest, place
from apps.common.recipe import Recipe

if TYPE_CHECKING:
    from apps.common.command_line import Arguments


@dataclass(frozen=True)
class Asked:
    """What the command line asks about: hardware by name, price of a device for an hour, MFU if given."""

    hardware: str
    price: float | None = None
    mfu: float | None = None


@dataclass(frozen=True)
class Forecast:
    """A run on `devices` of a kind. `micro_batch` is the largest that fits a device's memory, None if none does."""

    hardware: str
    devices: int
    precision: str
    peak_flops: float
    peak_source: str
    mfu: float
    mfu_source: str
    tokens_per_second: float
    tokens: int
    hours: float
    price: float | None
    cost: float | None
    memory_bytes: int | None
    fits: bool | None
    micro_batch: int | None

    def rows(self) -> dict[str, str]:
        """What a person reads."""
        per_device = f"{self.peak_flops / 1e12:.4g} TFLOP/s {self.precision} ({self.peak_source})"
        found = {
            "speed": f"{self.tokens_per_second:,.0f} tokens/s on {self.devices} x {per_device}",
            "MFU": f"{self.mfu:.2%}, {self.mfu_source}",
            "time": f"{duration(3600 * self.hours)} for {self.tokens:,} tokens, validation and checkpoints not counted",
        }
        if self.cost is not None and self.price is not None:
            found["cost"] = f"{self.cost:,.2f} at {self.price:g} an hour for each of {self.devices}"
        if self.memory_bytes is not None:
            there = f"{size(self.memory_bytes)} a device"
            best = "no sequence fits" if self.micro_batch is None else f"micro-batches up to {self.micro_batch} fit"
            found["memory"] = f"{'fits' if self.fits else 'does NOT fit'} {there}; {best}"
        return found


def read(arguments: Arguments) -> Asked | None:
    """The question in `arguments`. Raises BadRequest for one that cannot be answered."""
    options = arguments.options
    if "hardware" not in options:
        for name in ("price", "mfu"):
            if name in options:
                raise BadRequest(f"--{name} needs --hardware NAME")
        return None
    if "dry-run" not in options:
        raise BadRequest("--hardware only predicts, and needs --dry-run; --device chooses where to train")
    if "device" in options:
        raise BadRequest("--hardware and --device: give one of them")
    name = arguments.text("hardware", "")
    hardware.named(name)
    price = arguments.number("price", 0.0, 0.0, 1e9) if "price" in options else None
    mfu = arguments.number("mfu", 0.0, 1e-4, 1.0) if "mfu" in options else None
    return Asked(name, price, mfu)


def place_on(asked: Asked, requested_precision: str) -> Place:
    """Where a process would train. Raises BadRequest for bf16 on a card without it."""
    card = hardware.named(asked.hardware)
    if card is None:
        return place("cpu", precision.resolve(requested_precision, torch.device("cpu")))
    if requested_precision == "auto":
        requested_precision = "fp32" if card.bf16 is None else "bf16"
    card.flops(requested_precision)
    return Place("cuda", requested_precision, CUDA_RUNTIME)


def forecast(
    asked: Asked, recipe: Recipe, where: Place, needed: int, total_flops: float, tokens: int, devices: int
) -> Forecast:
    """The run of `total_flops` and `tokens` on `devices` processes at `where`, each of which takes `needed` bytes."""
    card = hardware.named(asked.hardware)
    if card is None:
        peak = speed.Peak(torch.device("cpu"), where.precision)
        flops, source, there = (
            peak.flops,
            "a product measured here",
            process_memory.free_bytes(torch.device("cpu"), devices),
        )
        there = there + process_memory.resident_bytes() if there is not None else None
    else:
        flops, source, there = card.flops(where.precision), "data sheet", card.memory
    mfu, mfu_source = asked.mfu, "as given by --mfu"
    if mfu is None:
        width = recipe.model.dim
        mfu = hardware.assumed_mfu(None if card is None else flops, width, where.precision)
        mfu_source = f"ASSUMED for {width} channels on such a device: narrow models wait for memory and launches"
    rate = devices * flops * mfu * tokens / total_flops
    hours = tokens / rate / 3600
    return Forecast(
        hardware=hardware.CPU if card is None else card.name,
        devices=devices,
        precision=where.precision,
        peak_flops=flops,
        peak_source=source,
        mfu=mfu,
        mfu_source=mfu_source,
        tokens_per_second=rate,
        tokens=tokens,
        hours=hours,
        price=asked.price,
        cost=None if asked.price is None else asked.price * hours * devices,
        memory_bytes=there,
        fits=None if there is None else needed <= there,
        micro_batch=None if there is None else _most(recipe, where, there, devices),
    )


def _most(recipe: Recipe, where: Place, there: int, devices: int) -> int | None:
    try:
        return largest(recipe, where, Budget(there, ""), devices)
    except BadRequest:
        return None


def to_dict(found: Forecast) -> dict[str, Any]:
    """Plain data, as `--json` prints it."""
    return dict(vars(found))
