"""From a recipe's `optim` to tinycore's optimizers and schedules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from apps.common.recipe import (
    M3,
    AdamATan2,
    AdamW,
    Constant,
    Cosine,
    DeepMomentum,
    DeltaGD,
    Muon,
    OptimConfig,
    ScheduleConfig,
    WarmupStableDecay,
)
from tinycore import optim


def optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the recipe over the model's parameters, at rates for its width."""
    made = _made(config, model)
    if config.base_width is not None:
        width: Any = model
        optim.widened(made, model, width.config.dim / config.base_width)
    return made


def _made(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    if isinstance(config, AdamW):
        shared: dict[str, Any] = {"betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
        if isinstance(config, DeltaGD):
            shared |= {"momentum": config.momentum, "scale": config.scale, "forgetting": config.forgetting}
            return optim.delta_gd(model, config.learning_rate, **shared)
        if not isinstance(config, Muon):
            return optim.adamw(model, config.learning_rate, **shared)
        make: Callable[..., torch.optim.Optimizer] = partial(optim.muon, nesterov=config.nesterov)
        if config.shared and dist.is_available() and dist.is_initialized():
            make = partial(optim.distributed_muon, nesterov=config.nesterov)
        if isinstance(config, DeepMomentum):
            own: dict[str, Any] = {"hidden": config.hidden, "inner_rate": config.inner_rate, "keep": config.keep}
            make = partial(optim.deep_momentum, **own)
        if isinstance(config, M3):
            make = partial(
                optim.m3,
                nesterov=config.nesterov,
                slow_period=config.slow_period,
                slow_momentum=config.slow_momentum,
                slow_share=config.slow_share,
                second_moment=config.second_moment,
            )
        return make(
            model,
            config.learning_rate,
            momentum=config.momentum,
            cautious=config.cautious,
            ns_steps=config.ns_steps,
            coefficients=config.ns_coefficients,
            ns_dtype=None if config.ns_dtype == "auto" else getattr(torch, config.ns_dtype),
            **shared,
        )
    if isinstance(config, AdamATan2):
        return optim.adam_atan2(model, config.learning_rate, config.betas, config.weight_decay)
    raise TypeError(f"no optimizer of kind {config.kind}")


class Factors(NamedTuple):
    """What a step's learning rate and weight decay are, as shares of the recipe's."""

    rate: float
    decay: float


def factors(config: OptimConfig, steps: int) -> Callable[[int], Factors]:
    """The factors as a function of the step, 0 to `steps` - 1, and of nothing else: a resumed run has the same."""
    rate = schedule(config.schedule, steps)
    until = config.weight_decay_until * steps if isinstance(config, AdamW) else steps
    return lambda step: Factors(rate(step), float(step < until))


def schedule(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """The factor of the learning rate as a function of the step, 0 to `steps` - 1."""
    if isinstance(config, WarmupStableDecay):
        return partial(optim.wsd, steps=steps, warmup=config.warmup, decay=config.decay, final=config.final)
    if isinstance(config, Cosine):
        return partial(optim.cosine, steps=steps, warmup=config.warmup, final=config.final)
    if isinstance(config, Constant):
        return partial(optim.constant, steps=steps, warmup=config.warmup)
    raise TypeError(f"no schedule of kind {config.kind}")
