"""A run's clock: time spent training, with validation, sampling and saving taken out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Any

from apps.common import speed
from apps.common.processes import World


class Clock:
    """Laps of training, each ended by a line of timing.jsonl."""

    def __init__(self, world: World, flops_per_token: float) -> None:
        self.world = world
        self.flops_per_token = flops_per_token
        self.peak = speed.Peak(world.device, world.precision)
        self.lap_paused = self.lap_waited = 0.0
        self.trained_tokens, self.trained_seconds = 0, 0.0
        self.pauses: dict[str, float] = {}
        self.start(0, 0.0)

    def start(self, tokens: int, elapsed: float) -> None:
        """Begin to count, from `tokens` learned and `elapsed` seconds spent in earlier sessions of the run."""
        self.began = self.lap_began = time.perf_counter()
        self.lap_tokens, self.elapsed = tokens, elapsed

    def back(self, tokens: int) -> None:
        """Begin a new lap at `tokens` learned: what was learned since is lost, the time is spent all the same."""
        self.lap_began, self.lap_tokens, self.lap_paused, self.lap_waited = time.perf_counter(), tokens, 0.0, 0.0
        self.pauses = {}

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """Around the wait for data."""
        start = time.perf_counter()
        yield
        self.lap_waited += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self, what: str) -> Generator[None]:
        """Around work that is not training; its seconds are logged under its name."""
        speed.synchronize(self.world.device)
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self.lap_paused += spent
        self.pauses[f"{what}_seconds"] = self.pauses.get(f"{what}_seconds", 0.0) + spent

    def lap(self, tokens: int) -> dict[str, Any]:
        """What timing.jsonl says about the steps since the last lap, which ended at `tokens` learned."""
        now = time.perf_counter()
        training = max(now - self.lap_began - self.lap_paused, 1e-9)
        learned = tokens - self.lap_tokens
        rate = learned / training
        self.trained_tokens += learned
        self.trained_seconds += training
        found = {
            "clock": time.time(),
            "seconds": self.seconds(),
            "tokens_per_second": rate,
            "memory_bytes": speed.memory_bytes(self.world.device),
            "mfu": rate * self.flops_per_token / (self.peak.flops * self.world.size),
            "mfu_peak": self.peak.source,
            "loader_wait": self.lap_waited / training,
            **self.pauses,
        }
        self.lap_began, self.lap_tokens, self.lap_paused, self.lap_waited = now, tokens, 0.0, 0.0
        self.pauses = {}
        return found

    def average(self) -> float:
        """Tokens per second of training over all laps of this session."""
        return self.trained_tokens / self.trained_seconds if self.trained_seconds else 0.0

    def seconds(self) -> float:
        """Seconds spent on the run, earlier sessions included."""
        return self.elapsed + time.perf_counter() - self.began
