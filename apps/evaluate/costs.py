"""What a model costs to use: tokens a second and memory, of one text at a time.

    prefill     a prompt of `prompt` tokens read at once                        decoding   each new token behind it, greedily
    state       bytes kept of that prompt, and what one more token adds          peak       of tensors, weights included

The best of a few rounds counts: whatever else the machine does only makes a round slower. Figures of different machines do not
compare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

import tinycore
from apps.bench import activations
from apps.common import process_memory
from apps.common.console import size
from apps.common.speed import synchronize
from tinycore import Decoder
from tinycore.state import state_bytes

PROMPT, NEW, ROUNDS = 256, 64, 3


@dataclass(frozen=True)
class Cost:
    """See the module. process_bytes: the most that this whole process has held so far."""

    device: str
    prompt: int
    new_tokens: int
    prefill_tokens_per_second: float
    tokens_per_second: float
    state_bytes: int
    state_bytes_per_token: float
    weights_bytes: int
    peak_bytes: int
    process_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def rows(self) -> list[list[str]]:
        """For a table: what, and how much."""
        return [
            [f"prefill, a prompt of {self.prompt} tokens", f"{self.prefill_tokens_per_second:,.0f} tokens/s"],
            [f"decoding, {self.new_tokens} new tokens", f"{self.tokens_per_second:,.0f} tokens/s"],
            [f"state after {self.prompt} tokens", size(self.state_bytes)],
            ["state a token adds", f"{self.state_bytes_per_token:,.0f} bytes"],
            ["weights", size(self.weights_bytes)],
            ["most tensors at one time, weights included", size(self.peak_bytes)],
            ["most memory of this process so far", size(self.process_bytes)],
        ]


@torch.inference_mode()
def measure(model: Decoder) -> Cost:
    """Of a causal model, on its device."""
    device = next(model.parameters()).device
    prompt = max(2, min(PROMPT, model.config.max_seq_len // 2))
    new = max(2, min(NEW, model.config.max_seq_len - prompt))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, prompt), generator=generator).to(device)

    def decode(count: int) -> object:
        return tinycore.generate(model, ids.tolist(), max_new_tokens=count, temperature=0.0)

    decode(new)  # the first time, memory is asked for
    read = _best(lambda: model(ids), device)
    whole, one = _best(lambda: decode(new), device), _best(lambda: decode(1), device)
    after, half = model(ids).state or {}, model(ids[:, : prompt // 2]).state or {}
    kept, before = state_bytes(after), state_bytes(half)
    weights = sum(one.numel() * one.element_size() for one in {*model.parameters(), *model.buffers()})
    return Cost(
        device.type,
        prompt,
        new,
        prompt / read,
        (new - 1) / max(whole - one, 1e-9),
        kept,
        (kept - before) / (prompt - prompt // 2),
        weights,
        _peak(lambda: decode(new), device, weights),
        process_memory.peak_bytes(),
    )


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of ROUNDS."""
    found = []
    for _ in range(ROUNDS):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found)


def _peak(work: Callable[[], object], device: torch.device, weights: int) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)

    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "99"
    )  # its profiler tells the terminal when it starts and that it found no GPU

    def once() -> None:
        work()

    return weights + activations.peak_bytes(once)
