"""Learning-rate schedules as pure functions: the factor on the peak learning rate at a step.

Steps count from 0 to `steps` - 1; every schedule warms up linearly over its first `warmup` steps, reaching 1 at step
`warmup`, with a first factor above zero.
"""

from __future__ import annotations

import math


def constant(step: int, steps: int, warmup: int = 0) -> float:
    """Warm-up, then 1."""
    return _warmup(step, warmup)


def cosine(step: int, steps: int, warmup: int = 0, final: float = 0.1) -> float:
    """Warm-up, then half a cosine from 1 down to `final` at the last step (arXiv 1608.03983)."""
    progress = _progress(step, warmup, steps)
    return _warmup(step, warmup) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def wsd(step: int, steps: int, warmup: int = 0, decay: float = 0.2, final: float = 0.0) -> float:
    """Warm-up, stable, then linear decay to `final` over the last `decay` share of the steps (arXiv 2404.06395)."""
    start = steps - max(1, round(decay * steps)) if decay > 0 else steps
    return _warmup(step, warmup) * (1 - (1 - final) * _progress(step, max(start, warmup), steps))


def _warmup(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))


def _progress(step: int, start: int, steps: int) -> float:
    """0 up to `start`, 1 at the last step."""
    return min(1.0, max(0.0, (step - start) / max(1, steps - 1 - start)))
