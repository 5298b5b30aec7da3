"""May this run go on under that request? Saved and requested values, side by side, each with its verdict.

    architecture   the weights would not fit, or ids would mean other words    refused
    training       the result would be another run's                           asks for --allow-changes
    numerics       the same computation, rounded otherwise                     said: no longer bit-exact
    reporting      what is written down about the run                          free

A key that no rule names is `training`: a new setting is never changed in silence.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

Verdict = Literal["architecture", "training", "numerics", "reporting"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# the longest rule that a dotted key starts with decides
RULES: dict[str, Verdict] = {
    "description": "reporting",
    "model": "architecture",
    "data": "training",
    # which ids there are is compared by the tokenizer's hash; where they are read from does not matter
    "data.tokenizer": "reporting",
    "data.cache": "reporting",
    "optim": "training",
    "train": "training",
    "train.lora": "architecture",
    "train.freeze": "architecture",  # what there is of the optimizer's state
    "train.micro_batch": "numerics",
    "train.sharding": "numerics",
    "train.compile": "numerics",
    "train.recompute": "numerics",
    "train.spikes": "reporting",
    "train.log_every": "reporting",
    "train.norms_every": "reporting",
    "train.max_hours": "reporting",  # train.steps is what came of it
    "train.validate_every": "reporting",
    "train.validate_rows": "reporting",
    "train.save_every": "reporting",
    "train.keep": "reporting",
    "train.sample_every": "reporting",
    "train.trackers": "reporting",
    "train.mirror": "reporting",
    "sample": "reporting",
    "tokenizer": "architecture",
    "dataset": "training",
    "environment": "numerics",
}


@dataclass(frozen=True)
class Difference:
    """One dotted key whose value changed."""

    key: str
    saved: Any
    requested: Any
    verdict: Verdict


def verdict_of(key: str) -> Verdict:
    """The verdict on a changed `key`."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        rule = RULES.get(".".join(parts[:length]))
        if rule is not None:
            return rule
    return "training"


def differences(saved: Mapping[str, Any], requested: Mapping[str, Any]) -> list[Difference]:
    """Every key whose value is not the same in both nested mappings, in order; a missing value is None."""
    old, new = flatten(saved), flatten(requested)
    keys = [*old, *(key for key in new if key not in old)]
    return [
        Difference(key, old.get(key), new.get(key), verdict_of(key))
        for key in keys
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    ]


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists of mappings as {dotted key: plain value}; lists of plain values stay whole."""
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{key}."))
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def side_by_side(found: list[Difference]) -> str:
    """The differences as aligned lines `key  saved -> requested`."""
    width = max(len(difference.key) for difference in found)
    return "\n".join(
        f"  {entry.key.ljust(width)}  {_shown(entry.saved)} -> {_shown(entry.requested)}" for entry in found
    )


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """What a result's last bits depend on beside the recipe: exact resuming is promised while all of it is equal."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": _device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type,
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
