"""`--minutes` and `train.max_hours`: measure this machine with a throw-away model before the run begins, then choose the steps.

The measured model, precision, micro-batch and processes are the run's, the steps are the trainer's own. Nothing of it
stays: model and optimizer are dropped and the random state is put back, so that the run is the one that `--train.steps`
with the same number would have been. All processes come to the same figures: the times are added up over them. Minutes are
aimed at; max_hours is a limit, which only ever takes steps away. The schedule spans the steps that are left, its decay
included, and the last of them is saved and verified as every run's last one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import tinycore
from apps.common import freezing, horizon, optimization, phases, random_state, recipes, speed, tasks
from apps.common.command_line import Request
from apps.common.console import Console, duration, short
from apps.common.dial import Derived
from apps.common.horizon import Pace
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.tasks import Prepared
from apps.common.trainer import Trainer
from apps.pretrain.start import no_progress

FEWEST, MOST = 3, 20  # timed steps
SHARE, LONGEST = 0.02, 10.0  # of the run's time, and seconds, that steps are timed for after the fewest


def fit_minutes(
    recipe: Recipe,
    request: Request,
    prepared: Prepared,
    world: World,
    console: Console,
    began: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Recipe, tuple[Derived, ...]]:
    """`recipe` with the steps that end `request.minutes`, or at most `train.max_hours`, after `began` (seconds of `clock`),
    and what was derived.

    With `--size`, batch, learning rate and weight decay follow from the tokens of that many steps, once. Raises
    BadRequest where the time is too short for one step.
    """
    hours, most = recipe.train.max_hours, None if request.minutes is not None else recipe.train.steps
    seconds = 60 * request.minutes if request.minutes is not None else 3600 * (hours or 0.0)
    asked = f"{request.minutes:g} minutes" if request.minutes is not None else f"{hours:g} hours"
    what = "--minutes" if request.minutes is not None else "train.max_hours"
    parameters = tinycore.count(recipe.model).parameters

    def fitting(chosen: Recipe, pace: Pace) -> int:
        def within() -> int:
            left = seconds - (clock() - began)
            return horizon.steps_within(chosen, world.size, parameters, pace, left, what)

        return world.on_main(within)

    longest = min(LONGEST, SHARE * seconds)
    pace = measure(recipe, prepared, world, longest)
    steps = fitting(recipe, pace)
    if most is not None and steps >= most:
        console.say(f"measured: all {most:,} steps take less than the {asked} of train.max_hours")
        return recipe, ()
    derived: tuple[Derived, ...] = ()
    if request.dial is not None:
        tokens = phases.sequences(recipe, steps) * recipe.data.positions
        mapping, derived = request.dial.turn(tokens)
        turned = _turned(recipe, recipes.from_dict(mapping), world)
        if turned.micro_batch(world.size) != recipe.micro_batch(world.size):
            pace = measure(turned, prepared, world, longest)
        recipe = turned
        steps = fitting(recipe, pace)
        steps = steps if most is None else min(steps, most)
    micro_tokens = recipe.micro_batch(world.size) * world.size * recipe.data.positions
    rate = micro_tokens / pace.micro_batch
    rule = f"what ends {asked} after the start at {short(rate)} tokens/s, measured here"
    recipe, fitted = horizon.with_steps(recipe, steps, rule, request.overrides)
    total = horizon.expected_seconds(recipe, world.size, parameters, pace, steps)
    end = time.strftime("%H:%M:%S", time.localtime(time.time() + total))
    console.say(
        f"measured {rate:,.0f} tokens/s: {steps:,} steps, {duration(total)} with validation and checkpoints, "
        f"expected to end at {end}"
    )
    return recipe, horizon.updated(derived, fitted)


def _turned(recipe: Recipe, turned: Recipe, world: World) -> Recipe:
    """`recipe` with what of `turned` depends on the horizon, resolved for this world; model and data do not."""
    train = replace(
        turned.train,
        precision=recipe.train.precision,
        micro_batch=turned.micro_batch(world.size),
        recompute=recipe.train.recompute,
    )
    return replace(recipe, optim=turned.optim, train=train)


def measure(recipe: Recipe, prepared: Prepared, world: World, longest: float) -> Pace:
    """The pace of `recipe` here, by training a fresh model for a few steps, about `longest` seconds, without a trace."""
    before = random_state.capture(world.device)
    try:
        return _measured(horizon.rehearsed(recipe, world.size), prepared, world, longest)
    finally:
        world.accelerator.free_memory()  # it holds on to every model it has prepared
        random_state.restore(before, world.device, "this process")


def _measured(recipe: Recipe, prepared: Prepared, world: World, longest: float) -> Pace:
    model = tinycore.build(recipe.model).to(world.device)
    freezing.freeze(model, recipe.train.freeze)
    trainer = Trainer(
        recipe=recipe,
        world=world,
        run=None,
        console=Console(main_process=False),
        model=model,
        optimizer=optimization.optimizer(recipe.optim, model),
        factors=optimization.factors(recipe.optim, recipe.train.steps),
        task=tasks.task(recipe, prepared, world),
        progress=no_progress(recipe, prepared, world, []),
    )
    steps = trainer.rehearse()
    first = _mean(world, next(steps))
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < MOST and sum(times) < longest):
        times.append(_mean(world, next(steps)))
    steps.close()
    typical = statistics.median(times)

    validation, samples = trainer.task.seconds(trainer.forward, lambda work: _mean(world, _seconds(world, work)))
    return Pace(
        micro_batch=typical,
        start=max(0.0, first - typical),
        validation=validation * (1 if recipe.train.ema is None else 2),  # the weights, and their average
        samples=samples,
    )


def _seconds(world: World, work: Callable[[], object]) -> float:
    speed.synchronize(world.device)
    start = time.perf_counter()
    work()
    speed.synchronize(world.device)
    return time.perf_counter() - start


def _mean(world: World, seconds: float) -> float:
    """The mean over the processes: the same in all of them, as every decision that follows from it."""
    (total,) = world.total(seconds)
    return total / world.size
