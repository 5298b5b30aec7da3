"""Times in seconds, and the machine's own ceilings, measured in the same run that they are compared with.

On a GPU a call has two times: that of its kernels, which the replay of a CUDA graph shows (`replayed`, then `timings`), and
that of a call in a program that launches one after another, where the host may be the slower (`paces`).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

BUDGET_SECONDS = 1.0
FEWEST, MOST = 5, 200
SLOW = 0.02  # seconds: what takes longer is not captured
CALLS = 20  # launched one after another where a pace is measured


@dataclass(frozen=True)
class Timing:
    """Percentiles of repeated calls, in seconds."""

    p20: float
    p50: float
    p80: float


@dataclass(frozen=True)
class Ceilings:
    """What this device does at best: bytes a second of a large copy, operations a second of a bfloat16
    (GPU) or
    float32 (CPU) matrix product."""

    bytes: float
    flops: float

    def limit(self, traffic: float, flops: float) -> float:
        """Seconds that work of this much traffic and arithmetic cannot go below."""
        return max(traffic / self.bytes, flops / self.flops)


def timings(calls: Mapping[str, Callable[[], object]], device: str) -> dict[str, Timing]:
    """Repeat the calls in turn, so that a disturbed moment falls on all of them, for about a second each
    after warming
    up; on a GPU the L2 cache is flushed before each call."""
    for call in calls.values():
        for _ in range(1 if _seconds(call, device) > SLOW else 3):
            call()
    flush = torch.empty(256 << 20, dtype=torch.int8, device=device) if device == "cuda" else None
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent, rounds = 0.0, 0
    while rounds < FEWEST or (rounds < MOST and spent < BUDGET_SECONDS * len(calls)):
        for name, call in calls.items():
            samples[name].append(_once(call, flush))
            spent += samples[name][-1]
        rounds += 1
    return {name: _timing(values) for name, values in samples.items()}


def replayed(call: Callable[[], object]) -> Callable[[], object] | None:
    """The call as the replay of a CUDA graph; None where it waits for the device, or takes so long that nobody would."""
    if _seconds(call, "cuda") > SLOW:
        return None
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what a first call on a stream sets up cannot be captured
        call()
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except Exception:
        torch.cuda.synchronize()
        return None
    return graph.replay


def paces(calls: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
    """Seconds a call on a GPU when many are launched one after another: of the host or of the device, the slower."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(FEWEST):
        for name, call in calls.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            torch.cuda.synchronize()
            samples[name].append((time.perf_counter() - start) / CALLS)
    return {name: _timing(values) for name, values in samples.items()}


def _timing(values: list[float]) -> Timing:
    return Timing(*torch.tensor(values).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist())


def _seconds(call: Callable[[], object], device: str) -> float:
    """Of one call, the second: the first one may compile."""
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ceilings(device: str) -> Ceilings:
    """Measure both ceilings."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    source = torch.empty((1 << 30) if device == "cuda" else (1 << 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    left = torch.randn(size, size, device=device, dtype=dtype)
    found = timings({"copy": lambda: target.copy_(source), "product": lambda: left @ left}, device)
    return Ceilings(bytes=2 * source.numel() / found["copy"].p20, flops=2 * size**3 / found["product"].p20)


def _once(call: Callable[[], object], flush: torch.Tensor | None) -> float:
    if flush is None:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    flush.zero_()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000
