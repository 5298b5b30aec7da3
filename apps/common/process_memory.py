"""Memory of this process and this machine: what is held, what a training process holds before its model, what is free."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path

import torch

import tinycore
from apps.common import speed
from tinycore.objectives import next_token

TOY = {
    "vocab_size": 256,
    "dim": 64,
    "max_seq_len": 64,
    "layers": [{"mixer": {"kind": "attention", "heads": 2}, "ffn": {"kind": "swiglu", "hidden": 128}}],
}


@functools.cache
def runtime_bytes(precision: str) -> int:
    """What a training process on this CPU holds before its model and data: interpreter, torch and libraries.

    Measured on this process, once, after two steps of a toy model: the first step of a process loads compilers and
    kernels that importing does not. The random state is left as it was.
    """
    from apps.common import trainer  # noqa: F401  # what training imports is part of what it holds

    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        model = tinycore.build(tinycore.ModelConfig.from_dict(TOY))
    optimizer = tinycore.optim.adamw(model, learning_rate=0.0)
    tokens = torch.zeros(2, 64, dtype=torch.int64)
    for _ in range(2):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses, _ = next(next_token(model, tokens, tokens, torch.zeros_like(tokens)))
        torch.stack([total for total, _ in losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return resident_bytes()


def resident_bytes() -> int:
    """Memory this process holds now; where the system does not say, the most it has held."""
    return _status("VmRSS") or speed.memory_bytes(torch.device("cpu"))


def peak_bytes() -> int:
    """The most memory this process has held. (What getrusage calls so may be its parent's, before the exec.)"""
    return _status("VmHWM") or speed.memory_bytes(torch.device("cpu"))


def peak_bytes_of(process: int) -> int:
    """The most memory the process of that number has held so far; 0 where the system does not say, or it has ended."""
    return _kilobytes(Path(f"/proc/{process}/status"), "VmHWM") or 0


def free_bytes(device: torch.device, processes: int = 1) -> int | None:
    """Memory that each of `processes` processes on this machine can still get; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    available = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    return min(available, _left_in_group(Path("/sys/fs/cgroup"))) // processes if available else None


def _left_in_group(group: Path) -> int:
    """What a container's limit leaves (control groups, version 2); without bound where there is none."""
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return max(0, int(limit) - int(used)) if limit != "max" else sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize


def _status(name: str) -> int | None:
    return _kilobytes(Path("/proc/self/status"), name)


def _kilobytes(file: Path, name: str) -> int | None:
    """The bytes that a line `name: N kB` of `file` says; None without such a file or line."""
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None
